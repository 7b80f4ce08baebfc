"""Answers that are remembered for a while."""
from __future__ import annotations

from prefork_lb.access.remembered import Remembered
from prefork_lb.clock import ManualClock


def test_each_until_its_time_is_over_and_the_newest_only() -> None:
    clock = ManualClock()
    found = Remembered[int, str](3, clock)
    found.put(1, "a", 5)
    found.put(2, "b", 10)
    assert (found.get(1), found.get(2), found.get(3)) == ("a", "b", None)
    clock.advance(5)
    assert (1 in found, 2 in found) == (False, True) and found.get(1) is None
    found.put(1, "c", 5)
    found.put(3, "d", 5)
    found.put(4, "e", 5)  # the oldest goes
    assert [found.get(key) for key in (1, 2, 3, 4)] == ["c", None, "d", "e"]
