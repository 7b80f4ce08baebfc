"""Least connections decides on the load of all workers together, through crashes and reloads."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import Balancer, FrontEnd, pool_text
from tests.support.client import Burst
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SERVERS = 4
ROUNDS = 10


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin
    held: int
    workers: int


@pytest.fixture(scope="module")
def setup(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Rig(tmp_path_factory.mktemp("exactness")) as rig:
        origin = rig.origin(SERVERS)
        balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=front_end.workers)
        yield Setup(balancer, origin, front_end.held, front_end.workers)


def hold_and_release(setup: Setup) -> None:
    """One burst of long requests: spread within 1 at the servers, all answered."""
    with setup.origin.released_at_end(), Burst(setup.balancer.address, setup.held) as burst:
        setup.origin.wait_for_in_flight(setup.held)
        assert setup.origin.spread <= 1, setup.origin
        setup.origin.release()
        assert burst.statuses() == [200] * setup.held
    setup.origin.wait_for_in_flight(0)
    setup.balancer.wait_until_idle()


def test_simultaneous_long_requests_are_spread_within_one_ten_times_in_a_row(setup: Setup) -> None:
    for _ in range(ROUNDS):
        hold_and_release(setup)
    setup.balancer.wait_until_idle()


def test_the_totals_are_what_the_servers_see(setup: Setup) -> None:
    with setup.origin.released_at_end(), Burst(setup.balancer.address, setup.held):
        counts = setup.origin.wait_for_in_flight(setup.held)
        status = setup.balancer.status()
        assert [status.in_flight[address] for address in setup.origin.addresses] == counts
        assert sum(status.workers.values()) == setup.held
        assert set(status.workers) <= set(setup.balancer.workers())
    setup.balancer.wait_until_idle()


def test_spread_is_within_one_again_after_a_worker_was_killed_in_the_middle(setup: Setup) -> None:
    """The killed worker's requests are gone; as many new ones fill exactly the gaps that they left."""
    balancer, origin, held, workers = setup
    with origin.released_at_end(), Burst(balancer.address, held) as burst:
        origin.wait_for_in_flight(held)
        claims = balancer.status().workers
        victim = max(claims, key=lambda pid: claims[pid])
        assert claims[victim] >= 1, claims
        balancer.kill_worker(victim)
        left = held - claims[victim]
        origin.wait_for_in_flight(left)
        wait_until(
            lambda: sum(balancer.status().in_flight.values()) == left,
            lambda: f"the killed worker's {claims[victim]} claims are given back: {balancer.status()}",
        )
        balancer.wait_for_workers(workers, without=[victim])
        with Burst(balancer.address, claims[victim]) as gap_fillers:
            origin.wait_for_in_flight(held)
            assert origin.spread <= 1, origin
            origin.release()
            assert gap_fillers.statuses() == [200] * claims[victim]
        whole, failed = burst.responses()
        assert [response.status for response in whole] == [200] * left
        assert len(failed) == claims[victim]
    balancer.wait_until_idle()
    for _ in range(ROUNDS):
        hold_and_release(setup)
    balancer.wait_until_idle()


def test_old_and_new_workers_count_together_after_hup_in_the_middle(setup: Setup) -> None:
    balancer, origin, held, workers = setup
    old = balancer.workers()
    with origin.released_at_end(), Burst(balancer.address, held) as before:
        origin.wait_for_in_flight(held)
        balancer.reload()
        with Burst(balancer.address, held) as after:
            origin.wait_for_in_flight(2 * held)
            assert origin.spread <= 1, origin
            # The old workers still hold theirs: both generations are in the same totals.
            totals = balancer.status().in_flight
            assert [totals[address] for address in origin.addresses] == origin.in_flight
            origin.release()
            assert after.statuses() == [200] * held
        assert before.statuses() == [200] * held
    balancer.wait_for_workers(workers, without=old)
    balancer.wait_until_idle()
    for _ in range(ROUNDS):
        hold_and_release(setup)
    balancer.wait_until_idle()


def test_short_requests_in_between_leave_no_claim_behind(setup: Setup) -> None:
    """Long and short ones mixed: the totals follow, whatever order they end in."""
    balancer, origin, held, _ = setup
    half = held // 2
    with origin.released_at_end(), Burst(balancer.address, half) as long:
        origin.wait_for_in_flight(half)
        start = len(origin.arrivals)
        with Burst(balancer.address, half, "/sleep?seconds=0.01") as short:
            assert short.statuses() == [200] * half
        assert len(origin.arrivals) - start == half
        wait_until(lambda: sum(balancer.status().in_flight.values()) == half, f"{half} are in flight, which are held")
        assert origin.spread <= 1, origin
        origin.release()
        assert long.statuses() == [200] * half
    balancer.wait_until_idle()
