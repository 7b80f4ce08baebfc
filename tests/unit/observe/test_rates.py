"""Rates over the last seconds, on a clock of the test's own."""
from __future__ import annotations

from prefork_lb.clock import ManualClock
from prefork_lb.observe.rates import CounterRates


def test_a_rate_is_over_the_window_and_begins_with_the_second_look() -> None:
    clock = ManualClock()
    growth = CounterRates(5, clock)
    growth.note({"a": 100})
    assert growth.rate("a") is None
    for second in range(1, 21):
        clock.advance(1)
        growth.note({"a": 100 + 10 * min(second, 10)})
        assert growth.rate("a") == {11: 8, 12: 6, 13: 4, 14: 2}.get(second, 10 if second < 11 else 0)


def test_a_counter_that_is_new_or_begins_anew_has_no_rate() -> None:
    clock = ManualClock()
    growth = CounterRates(5, clock)
    growth.note({"a": 100})
    clock.advance(1)
    growth.note({"a": 3, "b": 1000})
    assert growth.rate("a") == growth.rate("b") == 0
