"""Random, power of two, first."""
from __future__ import annotations

import math
import random

import pytest

from prefork_lb.balance.weighted_draw import draw
from tests.unit.balance.candidates import Backend, backends, counts, new_policy, sequence

DRAWS = 20_000


def within(found: int, probability: float) -> bool:
    """Five standard deviations of a binomial count: a right generator fails once in two million seeds."""
    return abs(found - DRAWS * probability) <= 5 * math.sqrt(DRAWS * probability * (1 - probability))


def test_the_draw_follows_the_weights() -> None:
    servers = backends(5, 3, 1, 1)
    found = counts(sequence(new_policy("random", seed=7), servers, DRAWS), servers)
    assert all(within(count, server.weight / 10) for count, server in zip(found, servers, strict=True)), found


def test_the_draw_is_independent_of_load() -> None:
    servers = [Backend(0, 1, 1000), Backend(1, 1, 0)]
    found = counts(sequence(new_policy("random", seed=8), servers, DRAWS), servers)
    assert within(found[0], 0.5), found


@pytest.mark.parametrize("name", ["random", "power-of-two"])
def test_the_same_seed_makes_the_same_picks_and_another_seed_others(name: str) -> None:
    servers = backends(3, 2, 1)
    first, again, other = (sequence(new_policy(name, seed=seed), servers, 50) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_point_below_the_sum_of_the_weights_belongs_to_a_server() -> None:
    """The edges of the draw: the points 0, 1, 2, ... give each server exactly its weight."""

    class Points(random.Random):
        point = -1

        def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
            assert (start, stop, step) == (6, None, 1)
            self.point += 1
            return self.point

    points = Points()
    servers = backends(3, 1, 2)
    assert [draw(points, servers).slot for _ in range(6)] == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("name", ["random", "power-of-two", "first", "round-robin", "weighted-round-robin", "least-connections"])
def test_a_single_candidate_is_always_picked(name: str) -> None:
    assert sequence(new_policy(name), [Backend(5, 3, 12)], 3) == "fff"


def test_of_two_servers_power_of_two_always_picks_the_less_loaded() -> None:
    assert sequence(new_policy("power-of-two"), [Backend(0, 1, 4), Backend(1, 1, 3)], 200) == "b" * 200


def test_power_of_two_counts_load_per_weight() -> None:
    # 4 of weight 2 is less than 3 of weight 1.
    assert sequence(new_policy("power-of-two"), [Backend(0, 2, 4), Backend(1, 1, 3)], 200) == "a" * 200


def test_power_of_two_never_picks_the_most_loaded_of_three() -> None:
    """Its two candidates are distinct, so the most loaded always loses."""
    servers = [Backend(0, 1, 1), Backend(1, 1, 9), Backend(2, 1, 2)]
    found = counts(sequence(new_policy("power-of-two", seed=4), servers, DRAWS), servers)
    assert found[1] == 0
    # b is drawn in two of the three pairs; a wins both of its pairs, c only the one with b.
    assert within(found[0], 2 / 3), found


def test_equal_loads_make_power_of_two_a_draw_by_weight() -> None:
    servers = backends(3, 1)
    found = counts(sequence(new_policy("power-of-two", seed=5), servers, DRAWS), servers)
    assert within(found[0], 3 / 4), found


def test_first_is_the_first_candidate_whatever_its_load() -> None:
    servers = [Backend(0, 1, 100), Backend(1, 50, 0)]
    assert sequence(new_policy("first"), servers, 3) == "aaa"
    assert sequence(new_policy("first"), servers[1:], 3) == "bbb"
