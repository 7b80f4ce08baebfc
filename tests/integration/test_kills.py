"""Workers that are killed: their claims are given back, and nobody waits for a lock that a dead one held."""
from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.support import processes
from tests.support.balancer import GEVENT, GTHREAD, Balancer, FrontEnd, pool_text, stopped
from tests.support.client import Burst, Truncated, fetch
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.standstill import Standstill
from tests.support.waiting import wait_until

SERVERS = 4
WORKERS = 4
HOLDERS = (GTHREAD, GEVENT)  # a sync worker never holds 8 requests

# The pick holds the ledger's lock for 1 ms, so that a kill at a random moment nearly always hits a worker that holds
# the lock or waits for it.
SLOW_PICK = '''
import time

from prefork_lb.balance.least_connections import LeastConnections
from prefork_lb.balance.policy import PolicySetup


class SlowPick(LeastConnections):
    def __init__(self, rng, memory):  # as a site's own class is called
        super().__init__(PolicySetup(rng, memory))

    def pick(self, candidates, request):
        until = time.monotonic() + 0.001
        while time.monotonic() < until:
            pass
        return super().pick(candidates, request)
'''


def burst_is_within_one(balancer: Balancer, origin: Origin, count: int) -> None:
    with origin.released_at_end(), Burst(balancer.address, count) as burst:
        origin.wait_for_in_flight(count)
        assert origin.spread <= 1, origin
        origin.release()
        assert burst.statuses() == [200] * count
    balancer.wait_until_idle()


def kill_one(balancer: Balancer, victim: int, death: signal.Signals = signal.SIGKILL, left: int = 0) -> None:
    """Kill a worker: all in-flight totals together are `left` within 1 s of its death, not counted for how long the siblings wait
    for a processor, or this process stands still."""
    looking = [os.getpid(), *(pid for pid in balancer.workers() if pid != victim)]

    def waited_s() -> float:
        return sum(map(processes.threads_waited_for_cpu, looking))

    balancer.kill_worker(victim, death)
    wait_until(lambda: not processes.is_running(victim), f"{victim} is dead", every=0.001)
    with Standstill() as standstill:
        waited_before, died_at = waited_s(), time.monotonic()
        while True:
            asked_at = time.monotonic()
            status = balancer.status()
            if sum(status.in_flight.values()) == left:
                return
            allowed_s = 1.0 + waited_s() - waited_before + standstill.longest_s
            assert asked_at - died_at <= allowed_s, f"{allowed_s:.1f} s after its death, {left} should be left: {status}"


@pytest.mark.parametrize("front_end", HOLDERS, ids=str)
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_claims_of_a_worker_that_died_are_given_back_within_a_second(
    rig: Rig, front_end: FrontEnd, death: signal.Signals
) -> None:
    origin = rig.origin(SERVERS)
    balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=WORKERS)
    victim, *others = balancer.workers()
    with origin.released_at_end():
        with stopped(others):
            burst = Burst(balancer.address, 8 * SERVERS)
            origin.wait_for_in_flight(8 * SERVERS)
        with burst:
            assert origin.in_flight == [8] * SERVERS
            # Those of the other servers end in the ordinary way: the worker holds 8 requests on the first one.
            origin.release(1, 2, 3)
            origin.wait_for_in_flight(8)
            assert origin.in_flight == [8, 0, 0, 0]
            wait_until(lambda: burst.answered() == 24, lambda: f"24 answers relayed, {burst.answered()} are")
            # Whole before the kill: gunicorn sends the head by itself, and the body after it.
            answered = [connection for connection in burst.connections if connection.has_input()]
            assert [connection.response().status for connection in answered] == [200] * 24
            kill_one(balancer, victim, death)
            for connection in burst.connections:
                if connection not in answered:
                    with pytest.raises(Truncated):
                        connection.response()
        burst_is_within_one(balancer, origin, 64)
        balancer.wait_for_workers(WORKERS, without=[victim])
        burst_is_within_one(balancer, origin, 64)


@pytest.mark.parametrize("front_end", HOLDERS, ids=str)
def test_claims_of_the_living_stay_when_a_sibling_dies(rig: Rig, front_end: FrontEnd) -> None:
    origin = rig.origin(SERVERS)
    balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=2)
    first, second = balancer.workers()
    with origin.released_at_end():
        with stopped([second]):
            doomed = Burst(balancer.address, 16)
            origin.wait_for_in_flight(16)
        with stopped([first]):
            kept = Burst(balancer.address, 16)
            origin.wait_for_in_flight(32)
        with doomed, kept:
            kill_one(balancer, first, left=16)
            totals = balancer.status()
            assert totals.workers[second] == 16
            assert [totals.in_flight[address] for address in origin.addresses] == [4] * SERVERS == origin.in_flight
            origin.release()
            assert kept.statuses() == [200] * 16
        balancer.wait_until_idle()


def test_all_workers_killed_at_once_leave_nothing_behind(rig: Rig) -> None:
    origin = rig.origin(SERVERS)
    balancer = rig.balancer(pool_text(origin.addresses), GTHREAD, workers=WORKERS)
    old = balancer.workers()
    with origin.released_at_end(), Burst(balancer.address, 32):
        origin.wait_for_in_flight(32)
        with stopped(old):  # so that none sees another one's death
            for pid in old:
                balancer.kill_worker(pid)
        origin.wait_for_in_flight(0)
    balancer.wait_for_workers(WORKERS, without=old)
    burst_is_within_one(balancer, origin, 64)


def test_ten_random_kills_under_load_leave_an_exact_balance(rig: Rig, front_end: FrontEnd) -> None:
    rng = random.Random(10)
    origin = rig.origin(SERVERS)
    workers = front_end.workers
    balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=workers)
    with Load(balancer.address, 8, "/sleep?seconds=0.02", seed=11) as load:
        for _ in range(10):
            load.wait_for_successes(rng.randrange(5, 60))
            balancer.kill_worker(rng.choice(balancer.workers()))
        load.wait_for_successes(50)
    assert load.succeeded > 10 * 5
    # A kill breaks at most what the worker had in hand: 8 clients, one request each.
    assert len(load.failures) <= 10 * 8, load.failures
    balancer.wait_for_workers(workers)
    balancer.wait_until_idle()
    burst_is_within_one(balancer, origin, front_end.held)


def test_a_worker_that_is_held_still_is_not_inside_the_lock(rig: Rig) -> None:
    """Of `stopped`, on which other tests rest: with a pick of 1 ms every third stop would hit a worker that holds the lock."""
    balancer = rig.new_balancer(pool_text(rig.origin(SERVERS).addresses, "slow_pick:SlowPick"), GTHREAD, workers=2)
    (balancer.folder / "slow_pick.py").write_text(SLOW_PICK)
    balancer.start()
    with Load(balancer.address, 8, "/", seed=301) as load:
        for turn in range(40):
            load.wait_for_successes(10)
            with stopped([balancer.workers()[turn % 2]]):
                # The clients at the stopped worker wait for it, a new one's request must not.
                assert fetch(balancer.address).status == 200
    assert load.failures == []


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_freeze_nothing_and_leak_nothing(rig: Rig) -> None:
    """The robust lock's test: with 8 clients and a pick of 1 ms somebody is inside the lock most of the time."""
    rng = random.Random(200)
    origin = rig.origin(SERVERS)
    config = pool_text(origin.addresses, "slow_pick:SlowPick")
    balancer = rig.new_balancer(config, GTHREAD, workers=WORKERS, extra=["--preload"])
    (balancer.folder / "slow_pick.py").write_text(SLOW_PICK)
    balancer.start()
    with Load(balancer.address, 8, "/", seed=201) as load:
        for _ in range(100):
            load.wait_for_successes(rng.randrange(1, 15))
            time.sleep(rng.uniform(0, 0.005))  # the random moment
            workers = balancer.workers()
            if workers:
                balancer.kill_worker(rng.choice(workers))
        load.wait_for_successes(200, 20)
    balancer.wait_for_workers(WORKERS)
    status = balancer.wait_until_idle()
    assert set(status.in_flight.values()) == {0}
    assert fetch(balancer.address).status == 200
    burst_is_within_one(balancer, origin, 64)
