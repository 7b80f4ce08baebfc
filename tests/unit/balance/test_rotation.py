"""The rotation of ties: exact shares by weight, and a bounded memory of an uneven past."""
from __future__ import annotations

import random

import pytest

from prefork_lb.balance.rotation import MEMORY_ROUNDS, UNIT, Rotation
from tests.unit.balance.candidates import Backend, backends, counts, fresh_memory, name_of


def turns(rotation: Rotation, tied: list[Backend], count: int, total_weight: int | None = None, equal: bool = False) -> str:
    total = total_weight or sum(server.weight for server in tied)
    return "".join(name_of(rotation.pick(tied, total, equal), tied) for _ in range(count))


def test_every_weight_from_1_to_16_and_the_usual_larger_ones_divide_the_unit() -> None:
    assert [weight for weight in (*range(1, 17), 20, 25, 50, 100, 200, 250, 500, 1000) if UNIT % weight] == []


def test_of_equal_weights_the_one_whose_last_pick_is_longest_ago_is_next() -> None:
    rotation = Rotation(fresh_memory())
    servers = backends(3, 3, 3, 3)
    assert turns(rotation, servers, 4, equal=True) == "abcd"
    assert turns(rotation, servers[1:2], 1, equal=True) == "b"
    assert turns(rotation, servers, 8, equal=True) == "acdbacdb"


def test_of_unequal_weights_equal_ones_that_tie_take_strict_turns() -> None:
    rotation = Rotation(fresh_memory())
    servers = backends(5, 3, 1, 1)
    turns(rotation, servers, 23)
    names = turns(rotation, servers[2:], 20, total_weight=10)
    assert names in ("cd" * 10, "dc" * 10)


def test_every_prefix_is_within_one_turn_of_the_exact_share() -> None:
    rng = random.Random(11)
    for _ in range(30):
        servers = backends(*(rng.randint(1, 16) for _ in range(rng.randint(2, 8))))
        total = sum(server.weight for server in servers)
        names = turns(Rotation(fresh_memory()), servers, 3 * total)
        for end in range(1, len(names)):
            found = counts(names[:end], servers)
            # Fair queueing's bound: no more than one turn ahead, and behind by less than one for each other server;
            # smallest finish time first keeps the lag under one as well (WF2Q's bound) but for a rounding.
            assert all(count <= end * server.weight / total + 1.0001 for count, server in zip(found, servers, strict=True))


def test_a_server_that_could_not_be_picked_gains_one_turn_at_most() -> None:
    servers = backends(4, 2, 1, 1)
    rotation = Rotation(fresh_memory())
    turns(rotation, servers, 8)
    turns(rotation, servers[1:], 4000)
    found = counts(turns(rotation, servers, 80), servers)
    assert 40 <= found[0] <= 41, found


def test_a_server_picked_for_want_of_others_is_held_back_for_a_few_rounds_only() -> None:
    servers = backends(1, 2, 1)
    rotation = Rotation(fresh_memory())
    turns(rotation, servers[:1], 1000, total_weight=4)
    after = turns(rotation, servers, 4 * (MEMORY_ROUNDS + 2))
    assert "a" not in after[:4]  # held back
    # From then on it has its share: one turn a round.
    assert counts(turns(rotation, servers, 40), servers) == [10, 20, 10]


@pytest.mark.parametrize("weights", [(997, 991, 983), (1000, 999, 1), (17, 19, 23, 29), (1000,) * 3 + (1,)])
def test_weights_that_leave_a_remainder_stay_within_their_share(weights: tuple[int, ...]) -> None:
    """UNIT // weight is short by less than 1, which is weight / UNIT, 0.006 %, of a turn at most."""
    servers = backends(*weights)
    count = 20 * sum(weights)
    found = counts(turns(Rotation(fresh_memory()), servers, count), servers)
    for server, number in zip(servers, found, strict=True):
        exact = count * server.weight / sum(weights)
        assert abs(number - exact) <= 0.0001 * exact + 2
