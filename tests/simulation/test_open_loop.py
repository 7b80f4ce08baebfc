"""An open load on equal servers: how level each policy keeps them."""
from __future__ import annotations

import pytest

from tests.simulation.simulator import Outcome, Simulation, exponential, fixed

RATE, SERVICE_S, SERVERS, SLOTS = 400, 0.030, 4, 4
REQUESTS, WARM_UP = 20_000, 200
SEEDS = (0, 1, 2)


def outcome(policy: str, seed: int, slots: int | None = SLOTS) -> Outcome:
    return Simulation(policy, [1] * SERVERS, seed, slots).poisson(RATE, REQUESTS, fixed(SERVICE_S), WARM_UP)


@pytest.mark.parametrize("slots", [SLOTS, None])
@pytest.mark.parametrize("seed", SEEDS)
def test_least_connections_is_as_level_as_can_be(seed: int, slots: int | None) -> None:
    """Whenever the number in flight is no multiple of 4 the spread is at least 1, and with 12 in flight on average it is a
    multiple about a quarter of the time: 0.75 is the ideal. Over seeds this load gives 0.743 to 0.752; a rule without
    strict turns among ties gives 1.2."""
    assert outcome("least-connections", seed, slots).spread <= 0.80


def test_least_connections_shares_equal_servers_equally() -> None:
    """Turns are strict, so of 20 000 picks nobody is off by more than the few that ties at the ends of a busy spell decide."""
    picks = outcome("least-connections", 3).picks
    assert max(picks) - min(picks) <= 0.01 * REQUESTS / SERVERS


@pytest.mark.parametrize("seed", SEEDS)
def test_two_choices_beat_one_and_a_full_look_beats_two(seed: int) -> None:
    """Mitzenmacher: the second choice takes most of the imbalance away. Measured: 4.6, 1.8, 0.75."""
    one, two, all_ = (outcome(policy, seed).spread for policy in ("random", "power-of-two", "least-connections"))
    assert two <= 0.6 * one
    assert all_ <= 0.6 * two


@pytest.mark.parametrize("seed", SEEDS)
def test_least_connections_is_level_where_turns_alone_are_not(seed: int) -> None:
    """With service times that differ, round robin cannot know who is busy."""
    spread = {
        policy: Simulation(policy, [1] * SERVERS, seed).poisson(RATE, REQUESTS, exponential(SERVICE_S), WARM_UP).spread
        for policy in ("round-robin", "least-connections")
    }
    assert spread["least-connections"] <= 0.6 * spread["round-robin"], spread


def test_first_fills_the_first_server() -> None:
    assert outcome("first", 0, None).picks == [REQUESTS, 0, 0, 0]


def test_one_seed_gives_one_outcome() -> None:
    assert outcome("power-of-two", 5) == outcome("power-of-two", 5)
