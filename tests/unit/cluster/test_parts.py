"""How a limit is divided."""
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefork_lb.cluster.parts import divide, part_alone, rounded_need


@pytest.mark.parametrize(("limit", "needs", "parts"), [
    (12, [0, 0, 0], [4, 4, 4]),
    (13, [0, 0, 0], [5, 4, 4]),
    (12, [6, 0, 0], [8, 2, 2]),  # what it needs, and an even part of the rest
    (12, [20, 0, 0], [12, 0, 0]),
    (12, [20, 20, 3], [5, 4, 3]),  # who needs less than an even part gets it
    (1, [1, 1], [1, 0]),
])
def test_by_need(limit: int, needs: list[int], parts: list[int]) -> None:
    assert divide(limit, needs) == parts


@settings(deadline=None)
@given(st.integers(1, 1000), st.lists(st.integers(0, 500), min_size=1, max_size=64))
def test_the_parts_add_up_to_the_limit(limit: int, needs: list[int]) -> None:
    parts = divide(limit, needs)
    assert sum(parts) == limit and min(parts) >= 0


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(1, 64))
def test_alone_all_together_keep_to_the_limit(limit: int, balancers: int) -> None:
    parts = [part_alone(limit, balancers, place) for place in range(balancers)]
    assert sum(parts) == max(limit, balancers)  # one each is the least


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(1, 64))
def test_a_need_is_rounded_up_in_steps(need: int, limit: int, balancers: int) -> None:
    step = max(1, limit // (4 * balancers))
    assert need <= rounded_need(need, limit, balancers) < need + step
