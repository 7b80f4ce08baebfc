"""Averages, largest values and growth over the last seconds."""
from __future__ import annotations

import pytest

from prefork_lb.scaling.windows import Average, Growth, Largest


def test_an_average_forgets_what_is_older_than_its_window() -> None:
    average = Average()
    for second in range(60):
        average.add(second, 10 if second < 54 else 20)
    assert average.over(59, 60) == pytest.approx(11)
    assert average.over(59, 6) == 20
    assert average.over(70, 6) == 0


def test_a_young_average_is_that_of_its_samples() -> None:
    average = Average()
    average.add(0, 4)
    average.add(1, 8)
    assert average.over(1, 60) == 6


def test_the_largest_value_is_kept_for_the_window() -> None:
    largest = Largest()
    found = []
    for second, value in enumerate([1, 5, 2, 4, 3, 3, 3, 3]):
        largest.add(second, value)
        found.append(largest.over(second, 3))
    assert found == [1, 5, 5, 5, 4, 4, 3, 3]


def test_without_a_window_the_last_value_is_the_largest() -> None:
    largest = Largest()
    for value in (5, 3):
        largest.add(1, value)
        assert largest.over(1, 0) == value


def test_growth_is_that_of_the_window() -> None:
    growth = Growth()
    for second in range(20):
        growth.add(second, second * 10, second * 0.5)
    assert growth.over(19, 6) == (60, 3.0)


def test_what_was_never_measured() -> None:
    assert (Average().over(1, 6), Largest().over(1, 6), Growth().over(1, 6)) == (0, 0, (0, 0))
