"""Who may use a route, and how much of it at once, over real workers."""
from __future__ import annotations

import pytest

from tests.support.balancer import GTHREAD, PROXY, FrontEnd, pool_text
from tests.support.client import Burst
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
