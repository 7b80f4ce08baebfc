"""An ejected server's trial, under real workers: whose request it is, and what a killed worker leaves of it."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Connection, fetch
from tests.support.moody import MoodyOrigin
from tests.support.origin import Link
from tests.support.rig import Rig
from tests.support.waiting import wait_until

GET = b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"
EJECTION = "[pools.web.ejection]\nfailures = 3\nseconds = 1\n[pools.web.retries]\nattempts = 1\n"


@pytest.fixture
def origin() -> Iterator[MoodyOrigin]:
    with MoodyOrigin(2) as origin, origin.released_at_end():
        yield origin


def start(rig: Rig, origin: MoodyOrigin, kind: FrontEnd) -> Balancer:
    return rig.balancer(pool_text(origin.addresses, "first") + EJECTION, kind, workers=2)


async def reset_all(links: list[Link]) -> None:
    for link in links:
        link.reset()


def ask(balancer: Balancer, clients: ExitStack) -> Connection:
    """A client that has sent its request and waits."""
    client = clients.enter_context(Connection(balancer.address, 20))
    client.send(GET)
    return client


def eject(balancer: Balancer, origin: MoodyOrigin) -> None:
    """Three failures, until the log tells the ejection of the first server."""
    origin.moods[0] = 500
    assert [fetch(balancer.address).status for _ in range(3)] == [500] * 3
    wait_until(lambda: "is ejected for 1" in balancer.log(), balancer.log)


def has_trial(balancer: Balancer, origin: MoodyOrigin, clients: ExitStack) -> bool:
    """Ask once more; whether the first server was asked."""
    before = origin.share(0), origin.share(1)
    ask(balancer, clients)
    wait_until(lambda: (origin.share(0), origin.share(1)) != before, "a server is asked")
    return origin.share(0) > before[0]


@pytest.mark.parametrize("kind", [GTHREAD, PROXY], ids=str)
def test_requests_from_before_the_ejection_that_fail_during_the_trial_do_not_fail_it(
    rig: Rig, origin: MoodyOrigin, kind: FrontEnd
) -> None:
    balancer = start(rig, origin, kind)
    origin.moods[0] = "hang"
    with ExitStack() as clients:
        early = [ask(balancer, clients) for _ in range(3)]
        origin.wait_for_in_flight(3)
        links = [link for link in list(origin.servers[0].links) if link.counted]
        eject(balancer, origin)
        origin.moods[0] = "hang"
        wait_until(lambda: has_trial(balancer, origin, clients), "a trial", every=0.1)
        origin.call(reset_all(links))
        assert [client.response().status for client in early] == [502] * 3
        origin.release(0)
        wait_until(lambda: "is back: a request succeeded" in balancer.log(), balancer.log)
    assert "its trial failed" not in balancer.log()


def test_the_trial_of_a_killed_worker_is_made_again_at_once(rig: Rig, origin: MoodyOrigin) -> None:
    balancer = start(rig, origin, PROXY)
    eject(balancer, origin)
    origin.moods[0] = "hang"
    with ExitStack() as clients:
        wait_until(lambda: has_trial(balancer, origin, clients), "a trial", every=0.1)
        # Those that asked when it was not time yet have their answers by then.
        wait_until(lambda: sum(balancer.status().workers.values()) == 1, lambda: f"the trial alone: {balancer.status()}")
        owner = next(pid for pid, in_flight in balancer.status().workers.items() if in_flight)
        origin.moods[0] = "well"
        balancer.kill_worker(owner)
        balancer.wait_for_workers(2, without=[owner])
        wait_until(lambda: fetch(balancer.address).body == b"origin-0", "the server is tried again", every=0.05)
    wait_until(lambda: "is back: a request succeeded" in balancer.log(), balancer.log)
