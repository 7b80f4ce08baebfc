"""The budget of retries, and the histogram of times."""
from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.upstream import retries
from prefork_lb.upstream.response_times import ResponseTimes
from prefork_lb.upstream.retries import RetryBudget


def budget(ledger: Ledger, percent: int = 20, floor: int = 2, most: int = 0) -> RetryBudget:
    start = ledger.segment.layout.pool(0)
    return RetryBudget(ledger, ledger.segment.cells[start:start + at.POOL_HEAD_CELLS], 0, [0, 1], percent, floor, most)


class Clock:
    now = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(retries, "now_ms", lambda: made.now)
    return made


def ask(ledger: Ledger, count: int, slot: int = 0) -> None:
    for _ in range(count):
        with ledger.locked():
            ledger.claim(slot)
        ledger.release(slot)


def taken(of: RetryBudget, tries: int = 1000) -> int:
    return next((number for number in range(tries) if not of.take()), tries)


def test_the_floor_is_always_allowed(ledger: Ledger, clock: Clock) -> None:
    assert taken(budget(ledger, percent=0, floor=3)) == 3


def test_a_share_of_the_requests_of_all_workers(segment: Segment, clock: Clock) -> None:
    ledgers = [Ledger(segment), Ledger(segment)]
    budgets = [budget(ledger) for ledger in ledgers]
    assert budgets[0].take()  # its window begins
    ask(ledgers[0], 60, slot=0)
    ask(ledgers[1], 40, slot=1)
    assert taken(budgets[1]) == 19 and not budgets[0].take()


def test_the_last_window_counts_as_far_as_it_reaches_into_these_ten_seconds(ledger: Ledger, clock: Clock) -> None:
    found = budget(ledger, floor=0)
    found.take()
    ask(ledger, 100)
    assert taken(found) == 20
    clock.now += 10_000
    assert not found.take()
    clock.now += 5_000  # half of the last one: 10 of 50
    assert not found.take()
    ask(ledger, 50)
    assert taken(found) == 10
    clock.now += 30_000
    ask(ledger, 10)
    assert not found.take(), "what was before the window is not of it"
    ask(ledger, 10)
    assert taken(found) == 2


def test_the_limit_of_those_under_way(segment: Segment, clock: Clock) -> None:
    ledgers = [Ledger(segment), Ledger(segment)]
    budgets = [budget(ledger, floor=100, most=3) for ledger in ledgers]
    assert budgets[0].take() and budgets[1].take() and budgets[0].take()
    assert not budgets[1].take()
    assert segment.cells[segment.layout.pool(0) + at.P_REFUSED] == 1
    budgets[0].give_back()
    assert budgets[1].take() and not budgets[0].take()


@given(st.lists(st.floats(1e-6, 1000), min_size=20, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_percentiles_are_right_to_an_eighth(samples: list[float], share: float) -> None:
    times = ResponseTimes()
    for sample in samples:
        times.note(sample)
        times.take_in()
    exact = sorted(samples)[max(0, -int(-share * len(samples) // 1) - 1)]
    assert exact <= times.percentile(share) <= exact * 1.13 + 3e-6


def test_too_few_samples_say_nothing() -> None:
    times = ResponseTimes()
    for _ in range(19):
        times.note(0.1)
    assert times.median() == 0
    times.note(0.1)
    assert 0.1 <= times.median() <= 0.113


def test_what_was_long_ago_counts_less_and_less() -> None:
    times, rng = ResponseTimes(), random.Random(1)
    for _ in range(10_000):
        times.note(rng.uniform(0.9, 1.1))
        times.take_in()
    for _ in range(6_000):
        times.note(0.01)
        times.take_in()
    assert times.median() < 0.012


def test_of_many_at_once_some_count_evenly() -> None:
    times = ResponseTimes()
    for number in range(100_000):
        times.note(1.0 + number // 1000 % 10)  # 1 to 10 s, now these, now those
    assert 5.0 <= times.median() <= 5.7 and 10.0 <= times.percentile(0.95) <= 11.3
    for _ in range(300):  # far fewer: the crowd before them counted no more than its share
        times.note(0.01)
    assert times.percentile(0.4) < 0.012


def test_times_beyond_all_measure_have_a_place() -> None:
    times = ResponseTimes()
    for _ in range(20):
        times.note(1e9)
    assert times.median() > 1000
