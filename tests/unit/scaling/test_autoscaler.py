"""From the load of a pool to a number of servers, on virtual time."""
from __future__ import annotations

from dataclasses import replace

import pytest

from prefork_lb.scaling.autoscaler import Autoscaler, PoolLoad
from prefork_lb.scaling.rule import RuleSettings, Wish

SETTINGS = RuleSettings(most=6, target=4)


class Pool:
    """A pool whose servers are there `start_s` after they are wished, and gone at once."""

    def __init__(self, settings: RuleSettings = SETTINGS, running: int = 1, least: int = 1, start_s: float = 0) -> None:
        self.now, self.least, self.start_s = 0.0, least, start_s
        self.running, self.starts = running, list[float]()
        self.autoscaler = Autoscaler(settings, self.now, running)
        self.requests, self.waited, self.waited_s = 0, 0, 0.0
        self.wish = Wish(running, "")

    def go(self, seconds: float, in_flight: int = 0, cpu: float = 0, wait_s: float = 0) -> Wish:
        """The last wish, after so many seconds of this load."""
        for _ in range(round(seconds * 4)):
            self.now += 0.25
            self.starts = [start for start in self.starts if not self._is_up(start)]
            self.waited, self.waited_s = self.waited + bool(wait_s), self.waited_s + wait_s
            self.autoscaler.note(self.now, PoolLoad(in_flight, self.requests, cpu, self.waited, self.waited_s))
            if self.now % 1 == 0:
                self.wish = self.autoscaler.wish(self.now, self.running, self.least)
                self.running = min(self.running, self.wish.servers)
                self.starts += [self.now] * (self.wish.servers - self.running - len(self.starts))
        return self.wish

    def _is_up(self, start: float) -> bool:
        is_up = self.now - start >= self.start_s
        self.running += is_up
        return is_up


def test_the_wish_is_what_the_average_needs_and_says_why() -> None:
    pool = Pool(running=2)
    assert pool.go(60, in_flight=14) == (4, "average 14.0 in flight, target 4: wants 4, has 4")


@pytest.mark.parametrize(("in_flight", "count"), [(1, 1), (4, 1), (5, 2), (8, 2), (24, 6), (25, 6), (1000, 6)])
def test_a_steady_load_gets_its_servers(in_flight: int, count: int) -> None:
    assert Pool().go(200, in_flight).servers == count


def test_a_surge_is_answered_within_the_panic_window() -> None:
    pool = Pool()
    pool.go(120, in_flight=1)
    assert pool.go(6, in_flight=20).servers == 5


def test_a_surge_of_less_than_twice_waits_for_the_stable_average() -> None:
    pool = Pool(running=2)
    pool.go(120, in_flight=8)
    assert pool.go(6, in_flight=11).servers == 3 and not pool.wish.why.startswith("average of")


def test_after_a_surge_servers_stay_for_a_stable_window_and_then_halve() -> None:
    pool = Pool()
    pool.go(10, in_flight=20)
    assert pool.go(50, in_flight=0).servers == 5
    assert "keeps 5 for 1 s more" in pool.wish.why
    counts = []
    while pool.running > 1 and pool.now < 300:
        counts.append(pool.go(1).servers)
    assert [count for count, before in zip(counts, [5, *counts], strict=False) if count != before] == [2, 1]


def test_more_is_not_wished_than_may_be() -> None:
    assert Pool().go(60, in_flight=100) == (6, "average 100.0 in flight, target 4: wants 25, has 6; at most 6")


def test_fewer_are_not_wished_than_must_be() -> None:
    assert Pool(running=3, least=3).go(100) == (3, "average 0.0 in flight, target 4: wants 0, has 3; at least 3")


def test_the_last_server_of_an_idle_pool_ends_when_none_is_needed() -> None:
    pool = Pool(replace(SETTINGS, idle_s=120), least=0)
    pool.go(10, in_flight=1)
    assert pool.go(119) == (1, "idle for 119 s; the last one ends after 120 s")
    assert pool.go(2).servers == 0


def test_requests_that_no_sample_saw_keep_the_last_server() -> None:
    pool = Pool(replace(SETTINGS, idle_s=120), least=0)
    pool.go(10, in_flight=1)
    for _ in range(10):
        pool.requests += 1
        assert pool.go(60).servers == 1


def test_a_pool_that_begins_with_none_starts_none_before_it_must() -> None:
    pool = Pool(running=0, least=0)
    assert pool.go(60).servers == 0
    assert pool.go(1, in_flight=1).servers == 1


def test_a_pool_with_none_must_have_one_by_its_least_number() -> None:
    assert Pool(running=0, least=2).go(1).servers == 2


def test_cpu_wishes_more_when_it_asks_for_more() -> None:
    pool = Pool(replace(SETTINGS, cpu=0.7))
    assert pool.go(100, in_flight=4, cpu=2.0) == (3, "average 2.0 cores in use, target 0.7: wants 3, has 3")
    assert Pool(replace(SETTINGS, cpu=0.7)).go(100, in_flight=20, cpu=2.0).servers == 5
    assert Pool().go(100, in_flight=4, cpu=2.0).servers == 1


def test_long_waits_add_one_server_at_a_time() -> None:
    pool = Pool(replace(SETTINGS, queue_s=0.1), start_s=5)
    assert pool.go(1, in_flight=1, wait_s=0.5) == (2, "0.50 s in the queue, target 0.1: wants 2, has 1")
    assert pool.go(4, in_flight=1, wait_s=0.5).servers == 2  # until it is there
    assert pool.go(3, in_flight=1, wait_s=0.5).servers == 3


def test_a_server_that_ended_long_waits_stays_for_a_stable_window() -> None:
    pool = Pool(replace(SETTINGS, queue_s=0.1))
    pool.go(1, in_flight=1, wait_s=0.5)
    assert pool.go(55, in_flight=1, wait_s=0.01).servers >= 2
    assert "since requests have waited in the queue" in pool.wish.why
    assert pool.go(15, in_flight=1, wait_s=0.01).servers == 1


def test_other_settings_apply_with_the_averages_of_before() -> None:
    pool = Pool()
    pool.go(60, in_flight=4)
    pool.autoscaler.use(replace(SETTINGS, target=2))
    assert pool.go(1, in_flight=4).servers == 2
