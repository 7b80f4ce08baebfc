"""Limits of requests at once over balancers that share, on virtual time and through a store in memory."""
from __future__ import annotations

import contextlib
import heapq
import random
import statistics
from collections.abc import Sequence

import msgspec
import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.cluster.key_limits import MOST_TOLD
from prefork_lb.cluster.report import decode_report
from prefork_lb.cluster.store import StoreError
from prefork_lb.shared import layout as at
from prefork_lb.shared.elsewhere import Elsewhere
from prefork_lb.shared.key_claims import KeyClaims, KeyShares
from prefork_lb.shared.ledger import Ledger
from tests.unit.cluster.conftest import NewBalancer
from tests.unit.cluster.store import FakeStore, OneBalancer, exchange

STEP_S, STEPS = 0.005, 10  # of an interval between exchanges
KEY = 77
EVEN, TWO, ONE, HOT = (1.0, 1.0, 1.0), (1.5, 1.5, 0.0), (3.0, 0.0, 0.0), (3.0, 0.13, 0.13)


class Limited:
    """Balancers whose routes have one limit, and clients that ask again and again."""

    def __init__(self, clock: ManualClock, balancers: Sequence[OneBalancer], limit: int) -> None:
        self.clock, self.balancers, self.limit, self.rng = clock, balancers, limit, random.Random(1)
        self.claims = [KeyClaims(each.segment, each.ledger) for each in balancers]
        self.running: list[tuple[float, int, int]] = []  # when a request ends, its balancer and its entry
        self.counts: list[int] = []  # in flight over all, after each step

    def claim(self, place: int, key: int = KEY) -> bool:
        """Whether one more request may be in flight; it stays."""
        return self.claims[place].claim(key, self.limit) >= 0

    def run(self, seconds: float, demand: Sequence[float], duration_s: float) -> None:
        """Each balancer is asked for so many times the limit at once, by requests of that length."""
        for step in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)
            now = self.clock()
            while self.running and self.running[0][0] <= now:
                _, place, entry = heapq.heappop(self.running)
                self.claims[place].release(entry)
            for place, times in enumerate(demand):
                mean = times * self.limit * STEP_S / duration_s
                for _ in range(int(mean) + (self.rng.random() < mean % 1)):
                    entry = self.claims[place].claim(KEY, self.limit)
                    if entry >= 0:
                        heapq.heappush(self.running, (now + duration_s * self.rng.uniform(0.5, 1.5), place, entry))
            self.counts.append(len(self.running))
            # Not in step with each other, as they are not.
            for place, each in enumerate(self.balancers):
                if step % STEPS == place * STEPS // len(self.balancers):
                    with contextlib.suppress(StoreError):
                        each.sharing.exchange()


@pytest.fixture
def three(new_balancer: NewBalancer) -> list[OneBalancer]:
    return [new_balancer(name) for name in "abc"]


@pytest.mark.parametrize("duration_s", [0.02, 0.3, 2.0])
@pytest.mark.parametrize("demand", [EVEN, TWO, ONE, HOT], ids=["even", "two", "one", "hot"])
@pytest.mark.parametrize(("limit", "about"), [(10, 0.15), (30, 0.1)])  # what is free goes by whole requests
def test_all_together_have_as_many_as_the_limit(
    clock: ManualClock, three: list[OneBalancer], limit: int, about: float, demand: Sequence[float], duration_s: float
) -> None:
    """Three times as many come as may. What was let in before the balancers knew of each other has ended by then."""
    limited = Limited(clock, three, limit)
    limited.run(1 + 2 * duration_s, demand, duration_s)
    limited.counts.clear()
    limited.run(6, demand, duration_s)
    assert abs(statistics.fmean(limited.counts) - limit) <= about * limit
    assert max(limited.counts) <= limit + 2 * (limit // 3 + 1)  # the others' parts by number


def test_what_comes_below_the_limit_is_not_refused(clock: ManualClock, three: list[OneBalancer]) -> None:
    limited = Limited(clock, three, 30)
    limited.run(2, (0.25, 0.25, 0.25), 0.3)
    limited.counts.clear()
    limited.run(10, (0.25, 0.25, 0.25), 0.3)
    assert statistics.fmean(limited.counts) >= 0.95 * 0.75 * 30


def test_what_is_in_flight_at_one_counts_at_all(clock: ManualClock, three: list[OneBalancer]) -> None:
    limited = Limited(clock, three, 9)
    exchange(clock, *three, rounds=3)
    assert [limited.claim(0) for _ in range(10)] == [True] * 9 + [False]
    exchange(clock, *three, rounds=2)
    # Each may begin with its part by number, though the first has all: it gives back as its requests end.
    assert [limited.claim(1) for _ in range(4)] == [True] * 3 + [False]
    assert limited.claim(2, KEY + 1)
    exchange(clock, *three, rounds=2)
    assert not limited.claim(0)


def test_of_a_limit_of_one_each_key_is_let_in_once(clock: ManualClock, three: list[OneBalancer]) -> None:
    limited = Limited(clock, three, 1)
    exchange(clock, *three, rounds=3)
    first = [limited.claims[0].claim(key, 1) for key in range(1, 13)]
    exchange(clock, *three, rounds=2)
    # The part by number is one at one of the three, which may be another one than the first.
    assert sum(limited.claim(place, key) for key in range(1, 13) for place in (1, 2)) == 8
    for entry in first:
        limited.claims[0].release(entry)
    exchange(clock, *three, rounds=2)
    assert not any(limited.claim(0, key) for key in range(1, 13) if (0 + key) % 3 >= 1)


@pytest.mark.parametrize("how", ["store", "silence"])
def test_alone_a_balancer_has_the_whole_limit(
    clock: ManualClock, store: FakeStore, three: list[OneBalancer], how: str
) -> None:
    limited = Limited(clock, three, 9)
    exchange(clock, *three, rounds=3)
    assert all(limited.claim(0) for _ in range(9))
    exchange(clock, *three, rounds=2)
    assert [limited.claim(1) for _ in range(4)] == [True] * 3 + [False]
    if how == "store":
        store.is_away = True
        exchange(clock, three[1])
    else:
        Elsewhere(three[1].segment, Ledger(three[1].segment, takes_row=False), three[1].states).go_alone()
    assert [limited.claim(1) for _ in range(7)] == [True] * 6 + [False]


def test_a_balancer_that_is_gone_takes_nothing(clock: ManualClock, three: list[OneBalancer]) -> None:
    limited = Limited(clock, three, 9)
    exchange(clock, *three, rounds=3)
    assert all(limited.claim(0) for _ in range(9))
    exchange(clock, *three, rounds=2)
    exchange(clock, *three[1:], rounds=30)
    assert [limited.claim(1) for _ in range(10)] == [True] * 9 + [False]


def test_a_report_has_the_keys_that_are_nearest_to_their_limit(
    clock: ManualClock, store: FakeStore, new_balancer: NewBalancer
) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    exchange(clock, a, b, rounds=3)
    claims = KeyClaims(a.segment, a.ledger)
    for key in range(1, 301):
        assert claims.claim(key, 2) >= 0
        if key <= 100:
            assert claims.claim(key, 2) >= 0
    assert claims.claim(1000, 100) >= 0  # less than a tenth of its part
    exchange(clock, a)
    report = decode_report(store.reports["a"])
    assert report is not None and len(report.keys) == MOST_TOLD
    assert {(key, 2, 2) for key in range(1, 101)} < set(report.keys) and 1000 not in {key for key, _, _ in report.keys}


def test_a_limit_that_is_raised_holds_though_no_request_ends(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    limited = Limited(clock, [a, b], 10)
    exchange(clock, a, b, rounds=2)
    for limited.limit in (10, 20, 30):
        exchange(clock, a, b, rounds=2)
        assert [limited.claim(place) for place in (0, 1) for _ in range(5)] == [True] * 10
        exchange(clock, a, b, rounds=2)
        assert not limited.claim(0) and not limited.claim(1)
        # The next request of each tells the new limit.
        limited.claims[0].claim(KEY, limited.limit + 10)
        limited.claims[1].claim(KEY, limited.limit + 10)


def test_balancers_with_different_limits_go_by_their_own(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    few, many = KeyClaims(a.segment, a.ledger), KeyClaims(b.segment, b.ledger)
    exchange(clock, a, b, rounds=2)
    for key in (10, 11):
        assert few.claim(key, 1) >= 0
        exchange(clock, a, b, rounds=2)
        many.claim(key, 1000)
        exchange(clock, a, b, rounds=2)
        assert [many.claim(key, 1000) >= 0 for _ in range(200)] == [True] * 200
        assert few.claim(key, 1) < 0


@pytest.mark.parametrize("how", ["share", "leave", "forget", "silence"])
def test_no_share_outlives_that_the_controller_takes_the_process_for_gone(
    clock: ManualClock, store: FakeStore, new_balancer: NewBalancer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The process was stopped between the store's answer and the end of what it writes."""
    a, b = new_balancer("a"), new_balancer("b")
    limited = Limited(clock, [a, b], 2)
    exchange(clock, a, b, rounds=2)
    assert all(limited.claim(0) for _ in range(2))
    exchange(clock, a, rounds=2)
    controllers = Elsewhere(b.segment, Ledger(b.segment, takes_row=False), b.states)
    if how == "share":  # it goes on
        monkeypatch.setattr(Elsewhere, "set", lambda *_: controllers._segment.cells.__setitem__(at.H_TOGETHER, 0))
        b.sharing.exchange()
    else:
        KeyShares(b.segment, Ledger(b.segment, takes_row=False)).set({KEY: 0})
        b.segment.cells[at.H_TOGETHER] = 0
        {"leave": b.sharing.leave, "forget": controllers.forget, "silence": controllers.go_alone_if_silent}[how]()
    assert all(limited.claim(1) for _ in range(2))


def test_more_keys_than_have_room_leave_those_that_are_in_use_here(clock: ManualClock, new_balancer: NewBalancer) -> None:
    balancers = [new_balancer(name) for name in "abc"]
    claims = [KeyClaims(each.segment, each.ledger) for each in balancers]
    exchange(clock, *balancers, rounds=2)
    shares = KeyShares(balancers[2].segment, Ledger(balancers[2].segment, takes_row=False))
    for key in range(1, 101):
        assert claims[0].claim(key, 2) >= 0 and claims[1].claim(1000 + key, 2) >= 0
    for key in range(1, 101, 25):
        assert claims[2].claim(key, 2) >= 0
    exchange(clock, *balancers, rounds=2)
    assert shares.most == 128 and 0 <= 128 - len(shares.in_flight()) <= 8
    assert {1, 26, 51, 76} < {each.key for each in shares.in_flight()}
    assert not any(claims[2].claim(key, 2) >= 0 for key in range(1, 101, 25))


@pytest.mark.parametrize("keys", [[(KEY, 2**32, 2)], [(KEY, -1, 2)], [(KEY, 1, 0)], [(2**63, 1, 2)], [(KEY, 1)], [KEY]])
def test_a_report_with_numbers_that_cannot_be_is_not_read(clock: ManualClock, new_balancer: NewBalancer, store: FakeStore,
                                                          keys: list[object]) -> None:
    a = new_balancer("a")
    exchange(clock, a)
    report = msgspec.msgpack.decode(store.reports["a"])
    assert decode_report(msgspec.msgpack.encode(report)) is not None
    report[-1] = keys
    assert decode_report(msgspec.msgpack.encode(report)) is None
