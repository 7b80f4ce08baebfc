"""Who may use a route, and how much of it at once, over real workers."""
from __future__ import annotations

import base64
from pathlib import Path

import bcrypt
import pytest

from tests.support.balancer import GEVENT, GTHREAD, PROXY, FrontEnd, pool_text
from tests.support.client import Burst, Connection, fetch
from tests.support.rig import Rig
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
    with origin.released_at_end(), Burst(balancer.address, 4) as burst:
        wait_until(lambda: burst.answered() == 1, "one of four is refused", 20)
        origin.wait_for_in_flight(3)
        origin.release()
        assert sorted(burst.statuses()) == [200, 200, 200, 429]

    def are_free() -> bool:  # a worker gives them back after the client has the answer
        with Burst(balancer.address, 3, "/bytes") as burst:
            return burst.statuses() == [200, 200, 200]

    wait_until(are_free, "all three are free again", 20)


USERS = """
[[routes]]
pool = "web"

[[routes]]
paths = ["/admin"]
pool = "web"
basic_auth = { file = "FILE", field = "X-User" }

[log]
access = "LOG"
"""


def basic(pair: str) -> tuple[str, str]:
    return "Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD, GEVENT], ids=str)
def test_users_with_passwords(rig: Rig, tmp_path: Path, front_end: FrontEnd) -> None:
    file, log = tmp_path / "users", tmp_path / "access.log"
    file.write_text("ann:" + bcrypt.hashpw(b"1", bcrypt.gensalt(4)).decode())
    origin = rig.origin(1)
    config = pool_text(origin.addresses) + USERS.replace("FILE", str(file)).replace("LOG", str(log))
    balancer = rig.balancer(config, front_end, workers=1)
    refused = fetch(balancer.address, "/x/../admin", fields=[basic("ann:2")])
    assert (refused.status, refused.value("WWW-Authenticate")) == (401, 'Basic realm="restricted", charset="UTF-8"')
    assert fetch(balancer.address, "/admin").status == 401 and origin.arrivals == []
    with Connection(balancer.address) as client:
        for _ in range(3):
            fields = [basic("ann:1"), ("X-User", "root"), ("X_User", "root")]
            assert client.request("/admin", fields=fields).status == 404  # the origin knows no such path
    assert [arrival.values("X-User") + arrival.values("X_User") for arrival in origin.arrivals] == [["ann"]] * 3
    wait_until(lambda: log.exists() and log.read_text().count('"user":"ann"') == 3, "the log has the user", 20)
