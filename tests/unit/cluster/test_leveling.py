"""What is added to a balancer's own counts."""
from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from prefork_lb.cluster.leveling import Leveling

ROUNDS = 30


def settled(own: list[int], others: list[int], weights: list[int] | None = None, balancers: int = 3, place: int = 0) -> list[int]:
    """After the same reports for a while."""
    leveling = Leveling(len(own))
    for _ in range(ROUNDS):
        loads = leveling.loads(own, others, weights or [1] * len(own), balancers, place)
    return loads


def test_what_is_level_is_left_alone() -> None:
    assert settled([2, 2, 2, 2], [5, 5, 5, 5]) == [0, 0, 0, 0]


def test_each_balancer_corrects_its_part() -> None:
    """Another one has 12 requests on the first server: together the three are to have 12 more on each other one, and each takes
    a third of it upon itself."""
    for place in range(3):
        loads = settled([0, 0, 0, 0], [12, 0, 0, 0], place=place)
        assert [load - loads[1] for load in loads] == [4, 0, 0, 0]


def test_a_gap_is_filled_by_one_balancer() -> None:
    """Three servers have some requests less than the first: each balancer's next request goes to another one of them."""
    found = [settled([1, 1, 1, 1], [9, 5, 5, 5], place=place) for place in range(3)]
    assert {loads.index(min(loads)) for loads in found} == {1, 2, 3}


def test_what_comes_and_goes_is_left_alone() -> None:
    """Requests of 30 ms seen every 50 ms: each look is another one. A balancer that followed them would spoil its own order."""
    rng, leveling = random.Random(1), Leveling(4)
    moved = 0
    for _ in range(200):
        own, others = ([rng.choice((1, 1, 1, 2)) for _ in range(4)] for _ in range(2))
        moved += len(set(leveling.loads(own, others, [1] * 4, 3, 0))) > 1
    assert moved <= 60


def test_shares_are_by_weight() -> None:
    assert settled([1, 2], [2, 4], [1, 2]) == [0, 0]
    loads = settled([0, 0], [9, 0], [1, 2])
    # By 3 requests a unit of weight: 3 on the first, 6 on the second. The first has 6 too many, the second 6 too few.
    assert (loads[0] - loads[1] / 2) == 3


def test_servers_that_get_no_requests_do_not_count() -> None:
    assert settled([1, 1, 0], [2, 2, 50], [1, 1, 0]) == [0, 0, 0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 3)), min_size=1, max_size=8),
       st.integers(1, 64), st.integers(0, 63))
def test_no_load_is_negative(servers: list[tuple[int, int, int]], balancers: int, place: int) -> None:
    own, others, weights = (list(column) for column in zip(*servers, strict=True))
    leveling = Leveling(len(own))
    for _ in range(3):
        assert all(load >= 0 for load in leveling.loads(own, others, weights, balancers, place % balancers))
