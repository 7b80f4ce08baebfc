"""Who may use a route, and how much of it at once, over real workers."""
from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import bcrypt
import pytest

from tests.support.balancer import GEVENT, GTHREAD, PROXY, FrontEnd, pool_text
from tests.support.certificates import Pair, make_pair, needs_openssl
from tests.support.client import Burst, Connection, fetch
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.tls import SecureConnection, believing
from tests.support.waiting import wait_until

CONCURRENCY = """
[[routes]]
pool = "web"
concurrency = { limit = 3 }
"""


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_a_client_has_so_many_in_flight_over_all_workers_also_when_they_are_killed(rig: Rig, front_end: FrontEnd) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses) + CONCURRENCY, front_end, workers=2)
    killed = balancer.workers()
    with origin.released_at_end(), Burst(balancer.address, 3):
        origin.wait_for_in_flight(3)
        for pid in killed:
            balancer.kill_worker(pid)
    balancer.wait_for_workers(2, without=killed)
    balancer.wait_until_idle(20)  # the rows of the killed ones are given back by then
    origin.wait_for_in_flight(0)
    with origin.released_at_end(), Burst(balancer.address, 4) as burst:
        wait_until(lambda: burst.answered() == 1, "one of four is refused", 20)
        origin.wait_for_in_flight(3)
        origin.release()
        assert sorted(burst.statuses()) == [200, 200, 200, 429]

    def are_free() -> bool:  # a worker gives them back after the client has the answer
        with Burst(balancer.address, 3, "/bytes") as burst:
            return burst.statuses() == [200, 200, 200]

    wait_until(are_free, "all three are free again", 20)


RULES = """
[[routes]]
pool = "web"

[[routes]]
paths = ["/admin"]
pool = "web"
basic_auth = { file = "FILE", field = "X-User" }

[[routes]]
paths = ["/pass"]
pool = "web"
forward_auth = { url = "http://DECIDES/bytes?n=3", fields = ["X-Served-By"] }

[[routes]]
paths = ["/deny"]
pool = "web"
forward_auth = { url = "http://DECIDES/status?code=401" }

[[routes]]
paths = ["/lost"]
pool = "web"
forward_auth = { url = "http://DECIDES/no-answer" }

[log]
access = "LOG"
"""

SERVED_BY = "origin-0"  # as each origin calls its first server


class Site(NamedTuple):
    address: tuple[str, int]
    origin: Origin
    decides: Origin
    log: Path


@pytest.fixture(scope="module", params=[PROXY, GTHREAD, GEVENT], ids=str)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with users, and with another server that decides."""
    front_end: FrontEnd = request.param
    folder = tmp_path_factory.mktemp("access")
    file, log = folder / "users", folder / "access.log"
    file.write_text("ann:" + bcrypt.hashpw(b"1", bcrypt.gensalt(4)).decode())
    with Rig(folder) as rig:
        origin, decides = rig.origin(1), rig.origin(1)
        rules = RULES.replace("FILE", str(file)).replace("LOG", str(log)).replace("DECIDES", decides.addresses[0])
        balancer = rig.balancer(pool_text(origin.addresses) + rules, front_end, workers=1)
        yield Site(balancer.address, origin, decides, log)


def basic(pair: str) -> tuple[str, str]:
    return "Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"


def test_users_with_passwords(site: Site) -> None:
    before = len(site.origin.arrivals)
    refused = fetch(site.address, "/x/../admin", fields=[basic("ann:2")])
    assert (refused.status, refused.value("WWW-Authenticate")) == (401, 'Basic realm="restricted", charset="UTF-8"')
    assert fetch(site.address, "/admin").status == 401 and len(site.origin.arrivals) == before
    with Connection(site.address) as client:
        for _ in range(3):
            fields = [basic("ann:1"), ("X-User", "root"), ("X_User", "root")]
            assert client.request("/admin", fields=fields).status == 404  # the origin knows no such path
    assert [arrival.values("X-User") + arrival.values("X_User") for arrival in site.origin.arrivals[before:]] == [["ann"]] * 3
    wait_until(lambda: site.log.exists() and site.log.read_text().count('"user":"ann"') == 3, "the log has the user", 20)


def test_another_server_decides(site: Site) -> None:
    before = len(site.origin.arrivals)
    fields = [("X-Served-By", "root"), ("Cookie", "a=b")]
    assert fetch(site.address, "/pass/x?y=z", "POST", body=b"1", fields=fields).status == 404  # the origin knows no such path
    asked, arrival = site.decides.arrivals[-1], site.origin.arrivals[-1]
    assert (asked.method, asked.target, asked.values("Cookie")) == ("GET", "/bytes?n=3", ["a=b"])
    assert (asked.values("X-Forwarded-Method"), asked.values("X-Forwarded-Uri")) == (["POST"], ["/pass/x?y=z"])
    assert arrival.values("X-Served-By") == [SERVED_BY]
    with Connection(site.address) as client:
        denied = [client.request("/deny") for _ in range(2)]
        assert [(each.status, each.value("X-Served-By")) for each in denied] == [(401, SERVED_BY)] * 2
        assert client.request("/lost").status == 503
    assert len(site.origin.arrivals) == before + 1


CERTIFICATES = """
[[routes]]
pool = "web"
request = { set = { X-Subject = "{tls_subject}", X-Print = "{tls_fingerprint}" } }

[[routes]]
paths = ["/members"]
pool = "web"
client_certificate = true
"""


@needs_openssl
@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_clients_with_certificates(rig: Rig, tmp_path: Path, front_end: FrontEnd) -> None:
    server, member = make_pair(tmp_path, "server", "localhost"), make_pair(tmp_path, "ann", "ann.example")
    origin = rig.origin(1)
    balancer = rig.balancer(
        pool_text(origin.addresses) + CERTIFICATES, front_end, workers=1, secure=True, extra=[
            "--certfile", str(server.certificate), "--keyfile", str(server.key), "--ca-certs", str(member.certificate),
            "--cert-reqs", "1"])

    def asks(target: str, shown: Pair | None) -> int:
        with SecureConnection(balancer.address, believing(server, shown)) as client:
            return client.request(target, fields=[("X-Subject", "CN=root"), ("X_Subject", "CN=root")], close=True).status

    assert asks("/members", None) == 403 and origin.arrivals == []
    assert [asks(target, shown) for target, shown in (("/members", member), ("/", member), ("/", None))] == [404, 200, 200]
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(member.certificate.read_text())).hexdigest()
    assert [(arrival.values("X-Subject"), arrival.values("X-Print"), arrival.values("X_Subject"))
            for arrival in origin.arrivals[1:]] == [(["CN=ann"], [fingerprint], []), ([""], [""], [])]
