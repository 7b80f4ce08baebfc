"""peak-ewma with real workers: what one of them hears of a server, all know; and what a killed one waited for waits no more."""
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import find
from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Burst, fetch
from tests.support.moody import MoodyOrigin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SERVERS, WORKERS = 4, 3
# Neither keeps requests away from a server: what is seen here is the policy's doing.
NO_EJECTION = "[pools.web.ejection]\nfailures = 0\npenalty = 0\n[pools.web.retries]\nattempts = 1\n"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Balancer, MoodyOrigin]]:
    with MoodyOrigin(SERVERS) as origin, Rig(tmp_path_factory.mktemp("slow")) as rig:
        yield rig.balancer(pool_text(origin.addresses, "peak-ewma", more=NO_EJECTION), PROXY, workers=WORKERS), origin


@pytest.fixture
def balancer(started: tuple[Balancer, MoodyOrigin]) -> Balancer:
    return started[0]


@pytest.fixture
def origin(started: tuple[Balancer, MoodyOrigin]) -> Iterator[MoodyOrigin]:
    yield started[1]
    started[1].moods = ["well"] * SERVERS
    started[1].release()


def shares(balancer: Balancer, origin: MoodyOrigin, count: int) -> list[int]:
    """How many of so many requests, one after another and each on a new connection, each server got."""
    start = len(origin.seen)
    for _ in range(count):
        fetch(balancer.address)
    return [origin.share(index, start) for index in range(SERVERS)]


def wait_until_even(balancer: Balancer, origin: MoodyOrigin) -> None:
    """A trial has brought every server back."""
    wait_until(lambda: min(shares(balancer, origin, 40)) >= 5, "every server has its share", 20)


def awaited(balancer: Balancer) -> int:
    """Requests whose answer is awaited, as the shared memory has it."""
    segment = find(balancer.master)
    assert segment is not None
    try:
        with segment.cells[segment.layout.column(at.C_UNANSWERED)] as column:
            return sum(column)
    finally:
        segment.close()


@pytest.mark.parametrize("mood", [503, 429, "late", "reset"])
def test_a_server_that_is_slow_or_fails_at_once_is_left_to_trials(balancer: Balancer, origin: MoodyOrigin,
                                                                  mood: str | int) -> None:
    """In turns it would have 50 of 200. A few answers show what it is; then it gets one request a second."""
    wait_until_even(balancer, origin)
    origin.close_idle_connections()  # a request that is reset on a kept connection is sent to the server once more
    wait_until(lambda: not origin.servers[1].links, "no connection is kept")
    origin.moods[1] = mood
    begin = time.monotonic()
    share = shares(balancer, origin, 200)[1]
    assert share <= 10 + (time.monotonic() - begin)
    origin.moods[1] = "well"
    wait_until_even(balancer, origin)


def test_a_killed_workers_requests_wait_for_no_answer_any_more(balancer: Balancer, origin: MoodyOrigin) -> None:
    wait_until_even(balancer, origin)
    origin.moods = ["hang"] * SERVERS
    workers = balancer.workers()
    with Burst(balancer.address, 24) as burst:
        wait_until(lambda: awaited(balancer) == 24, lambda: f"24 wait, {awaited(balancer)} do")
        balancer.kill_worker(workers[0])
        wait_until(lambda: awaited(balancer) == sum(balancer.status().in_flight.values()) < 24,
                   lambda: f"{awaited(balancer)} wait, {balancer.status()}")
        origin.moods = ["well"] * SERVERS
        origin.release()
        burst.responses()
    balancer.wait_until_idle()
    assert awaited(balancer) == 0
    balancer.wait_for_workers(WORKERS, without=workers[:1])
    wait_until_even(balancer, origin)


def test_a_server_that_hangs_is_seen_before_a_request_times_out(balancer: Balancer, origin: MoodyOrigin) -> None:
    """Requests hang at it, then at the others, too: by its longer silence it gets none of those, unless as a trial. With
    least-connections it would have as many in flight as the others."""
    wait_until_even(balancer, origin)
    origin.moods[1] = "hang"
    with Burst(balancer.address, 8) as first:
        wait_until(lambda: awaited(balancer) == 8 - first.answered() == origin.in_flight[1] > 0, "only what hangs is left")
        since = time.monotonic()
        wait_until(lambda: time.monotonic() > since + 0.3, "it has been silent for far longer than requests take")
        origin.moods = ["hang"] * SERVERS
        start, before, begin = len(origin.seen), awaited(balancer), time.monotonic()
        with Burst(balancer.address, 24) as others:
            wait_until(lambda: awaited(balancer) == before + 24, "all hang")
            assert origin.share(1, start) <= 3 + (time.monotonic() - begin)  # a trial a second
            origin.moods = ["well"] * SERVERS
            origin.release()
            others.responses()
    balancer.wait_until_idle()
    assert awaited(balancer) == 0
