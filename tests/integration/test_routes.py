"""Routes with answers and changes of their own, over real workers."""
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Connection, Response, fetch, request_bytes
from tests.support.origin import Origin
from tests.support.pattern import pattern
from tests.support.rig import Rig

ROUTES = """
[[routes]]
pool = "web"

[[routes]]
paths = ["/api"]
pool = "web"
path = "/v2/{rest}"
body_limit = 100
request = { set = { X-Client = "{client}" }, add = { X-Tag = "two" }, remove = ["X-Secret"] }
response = { set = { X-Served-By = "{host}" }, add = { Strict-Transport-Security = "max-age=60" }, remove = ["X-Behavior"] }

[[routes]]
paths = ["/old"]
redirect = "https://example.org/new/{rest}"
redirect_status = 308

[[routes]]
paths = ["/admin"]
pool = "web"
allow = ["192.0.2.0/24"]
error_pages = { "400-499" = "FOLDER/403.html" }

[[routes]]
hosts = ["secure.example"]
pool = "web"
https = {}

[[routes]]
hosts = ["cors.example"]
pool = "web"
cors = { origins = ["https://a.example"], methods = ["PUT"] }

[[routes]]
paths = ["=/paced"]
pool = "web"
path = "/bytes{query}"
bandwidth = { per_second = 65536, after = 16384 }

[[routes]]
paths = ["=/robots.txt"]
respond = { body = "User-agent: *", fields = { Cache-Control = "max-age=60" } }

[[routes]]
paths = ["/.well-known/acme-challenge/"]
respond = { folder = "FOLDER" }
"""


class Site(NamedTuple):
    balancer: Balancer
    origin: Origin
    folder: Path

    def get(self, target: str, **more: object) -> Response:
        return fetch(self.balancer.address, target, **more)


@pytest.fixture(scope="module", params=[PROXY, GTHREAD], ids=str)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    front_end: FrontEnd = request.param
    folder = tmp_path_factory.mktemp("acme")
    (folder / "403.html").write_text("<p>not you")
    with Rig(tmp_path_factory.mktemp("routes")) as rig:
        origin = rig.origin(1)
        routes = ROUTES.replace("FOLDER", str(folder))
        yield Site(rig.balancer(pool_text(origin.addresses) + routes, front_end, workers=1), origin, folder)


def test_a_server_gets_another_path_and_other_fields(site: Site) -> None:
    fields = [("X-Secret", "1"), ("X-Client", "me"), ("X-Tag", "one")]
    response = site.get("/api/../api//a/%62?c=d", fields=fields)
    assert response.body == b"the origin knows no /v2/a/b\n"
    arrival = site.origin.arrivals[-1]
    assert arrival.target == "/v2/a/b?c=d"
    assert [arrival.values(name) for name in ("X-Client", "X-Tag", "X-Secret")] == [["127.0.0.1"], ["one", "two"], []]
    assert (response.value("X-Served-By"), response.value("Strict-Transport-Security")) == ("test.example", "max-age=60")


def test_other_routes_are_left_alone(site: Site) -> None:
    response = site.get("/x//y?z", fields=[("X-Secret", "1")])
    arrival = site.origin.arrivals[-1]
    assert (arrival.target, arrival.values("X-Secret")) == ("/x//y?z", ["1"])
    assert response.value("Strict-Transport-Security") is None and response.value("X-Served-By") != "test.example"


def test_answers_of_a_route_ask_no_server_and_keep_the_connection(site: Site) -> None:
    before = len(site.origin.arrivals)
    (site.folder / "token").write_text("proof")
    with Connection(site.balancer.address) as client:
        moved = client.request("/old/a?b=c", "POST", body=b"x" * 1000)
        lost, found = (client.request(f"/.well-known/acme-challenge/{name}") for name in ("none", "token"))
        robots, head = client.request("/robots.txt"), client.request("/robots.txt", "HEAD")
    assert (moved.status, moved.value("Location")) == (308, "https://example.org/new/a?b=c")
    assert (robots.status, robots.body, robots.value("Cache-Control")) == (200, b"User-agent: *", "max-age=60")
    assert (head.status, head.body, head.value("Content-Length")) == (200, b"", "13")
    assert (found.body, lost.status) == (b"proof", 404)
    assert len(site.origin.arrivals) == before


@pytest.mark.parametrize("target", ["/admin", "/admin/x", "/x/../admin", "/%61dmin", "/x/%2e%2e/admin/", "/./admin//x"])
def test_no_spelling_goes_by_an_access_rule(site: Site, target: str) -> None:
    assert site.get(target).status == 403


@pytest.mark.parametrize("target", [
    "/x/..%2fadmin", "/x/..;/admin", "/%2fadmin", "//admin", "/x%5c..%5cadmin", "/admin%20", "/%61dmin;x"])
def test_what_servers_may_read_as_another_path_is_refused(site: Site, target: str) -> None:
    assert site.get(target).status == 400


def test_a_body_that_is_too_long_is_refused_before_a_server_is_asked(site: Site) -> None:
    before = len(site.origin.arrivals)
    assert site.get("/api/x", method="POST", body=b"x" * 101).status == 413
    assert len(site.origin.arrivals) == before
    site.get("/api/x", method="POST", body=b"x" * 100)
    assert len(site.origin.arrivals) == before + 1


def test_a_chunked_body_that_becomes_too_long_is_refused(site: Site) -> None:
    with Connection(site.balancer.address) as client:
        client.send(request_bytes("/api/x", "POST", [("Transfer-Encoding", "chunked")]) + b"40\r\n" + b"x" * 64 + b"\r\n")
        client.send(b"40\r\n" + b"x" * 64 + b"\r\n")  # no more: what nobody has read when a connection is closed resets it
        assert client.response("POST").status == 413


def test_a_response_is_not_faster_than_its_route_allows(site: Site) -> None:
    """How slow it is, is the machine's matter."""
    size = 112 * 1024  # more than the kernel would leave to a copy in this process
    begun = time.monotonic()
    paced = site.get(f"/paced?n={size}")
    took_s = time.monotonic() - begun
    assert paced.body == site.get(f"/bytes?n={size}").body == pattern(0, size)
    assert took_s > (size - 16384) / 65536 - 0.25 - 0.01


RATES = """
[[routes]]
pool = "web"

[[routes]]
paths = ["/login"]
pool = "web"
rate = { per_second = 0.001, burst = 30 }

[[routes]]
paths = ["/keys"]
pool = "web"
rate = { key = "header:X-Key", per_second = 0.001, burst = 5 }
"""


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_a_rate_holds_over_workers_reloads_and_kills(rig: Rig, front_end: FrontEnd) -> None:
    origin = rig.origin(1)
    balancer = rig.balancer(pool_text(origin.addresses) + RATES, front_end, workers=4)

    def statuses(target: str, count: int, *fields: tuple[str, str]) -> list[int]:
        return [fetch(balancer.address, target, fields=list(fields)).status for _ in range(count)]

    passed = statuses("/login", 20)
    killed = balancer.workers()[0]
    balancer.kill_worker(killed)
    balancer.wait_for_workers(4, without=[killed])
    passed += statuses("/login", 5)
    balancer.reload()
    passed += statuses("/login/x", 20)
    assert (passed.count(429), len(passed)) == (15, 45)
    refused = fetch(balancer.address, "/login")
    assert refused.value("RateLimit-Policy") == '"route";q=30;w=30000'
    wait_s = int(refused.value("Retry-After") or 0)
    assert 600 < wait_s <= 1000 and refused.value("RateLimit") == f'"route";r=0;t={wait_s}'
    with Connection(balancer.address) as client:  # the same head again: it was worked out once, and is counted each time
        again = [client.request("/keys", fields=[("X-Key", "a")]).status for _ in range(10)]
    assert again.count(429) == 5
    assert statuses("/keys", 6, ("X-Key", "b")).count(429) == 1
    assert 429 not in statuses("/keys", 10) + statuses("/other", 10)  # without a key, and without a limit


def test_a_route_has_an_error_page_of_its_own(site: Site) -> None:
    response = site.get("/admin", fields=[("Accept", "application/json")])
    assert (response.status, response.body, response.value("Content-Type")) == (403, b"<p>not you", "text/html; charset=utf-8")


def test_http_is_sent_to_https(site: Site) -> None:
    response = site.get("/a?b", fields=[("Host", "secure.example")])
    assert (response.status, response.value("Location")) == (308, "https://secure.example/a?b")
    assert response.value("Strict-Transport-Security") is None


def test_a_preflight_is_answered_and_a_response_says_who_may_read_it(site: Site) -> None:
    before = len(site.origin.arrivals)
    fields = [("Host", "cors.example"), ("Origin", "https://a.example")]
    response = site.get("/a", method="OPTIONS", fields=[*fields, ("Access-Control-Request-Method", "PUT")])
    assert (response.status, response.body, response.value("Access-Control-Allow-Methods")) == (204, b"", "PUT")
    assert len(site.origin.arrivals) == before, "a server was asked"
    response = site.get("/bytes", fields=fields)
    assert (response.status, response.value("Access-Control-Allow-Origin")) == (200, "https://a.example")
