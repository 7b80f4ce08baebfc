"""Least connections: the load decides, weights divide it, equals take turns."""
from __future__ import annotations

import random

import pytest

from tests.unit.balance.candidates import Backend, backends, burst, counts, fresh_memory, new_policy, sequence

NAME = "least-connections"


def loaded(*in_flight: int) -> list[Backend]:
    return [Backend(slot, 1, count) for slot, count in enumerate(in_flight)]


def test_the_server_with_the_fewest_requests_in_flight_is_picked() -> None:
    assert sequence(new_policy(NAME), loaded(3, 1, 2), 5) == "bbbbb"


# (in-flight, weight) of two servers, and who is picked: the smaller (2 * in-flight + 1) / weight.
@pytest.mark.parametrize(("one", "other", "picked"), [
    ((1, 2), (0, 1), "b"),  # 3/2 against 1
    ((1, 4), (0, 1), "a"),  # 3/4 against 1
    ((4, 10), (0, 1), "a"),  # 9/10 against 1
    ((5, 10), (0, 1), "b"),  # 11/10 against 1
    ((500_000, 1000), (499_999, 1000), "b"),
])
def test_load_is_counted_per_weight(one: tuple[int, int], other: tuple[int, int], picked: str) -> None:
    servers = [Backend(0, one[1], one[0]), Backend(1, other[1], other[0])]
    assert sequence(new_policy(NAME), servers, 1) == picked
    swapped = [Backend(0, other[1], other[0]), Backend(1, one[1], one[0])]
    assert sequence(new_policy(NAME), swapped, 1) == {"a": "b", "b": "a"}[picked]


def test_idle_equal_servers_take_turns() -> None:
    assert sequence(new_policy(NAME), backends(1, 1, 1, 1), 9) == "abcdabcda"


def test_equal_weights_other_than_one_take_turns_as_well() -> None:
    assert sequence(new_policy(NAME), backends(5, 5, 5), 7) == "abcabca"


@pytest.mark.parametrize("weights", [(5, 3, 1, 1), (5, 1, 1), (3, 2), (16, 9, 4, 1), (100, 1), (7, 7, 1)])
def test_idle_traffic_is_divided_exactly_by_weight(weights: tuple[int, ...]) -> None:
    """The weights divide the rotation's unit, so every cycle is exact."""
    servers = backends(*weights)
    policy = new_policy(NAME)
    for _ in range(20):
        assert counts(sequence(policy, servers, sum(weights)), servers) == list(weights)


def test_idle_heavy_server_is_interleaved_not_run_in_a_row() -> None:
    """In any 7 picks of 5:1:1 a light server's turn comes, so the heavy one's longest run is 5 (its own 5 of a cycle)."""
    names = sequence(new_policy(NAME), backends(5, 1, 1), 70)
    assert "aaaaaa" not in names


def test_tied_servers_take_turns_while_others_are_busy() -> None:
    servers = loaded(0, 4, 0, 4, 0)
    assert sequence(new_policy(NAME), servers, 7) == "aceacea"


def test_each_tied_server_is_picked_once_a_round_whatever_came_before() -> None:
    rng = random.Random(3)
    servers = backends(*[1] * 6)
    policy = new_policy(NAME)
    for _ in range(200):
        for server in servers:  # an uneven past
            server.in_flight = rng.randrange(4)
        sequence(policy, servers, rng.randrange(20))
        tied = rng.sample(range(6), rng.randint(2, 6))
        for server in servers:
            server.in_flight = 1 if server.slot in tied else 2
        round_one, round_two = sequence(policy, servers, len(tied)), sequence(policy, servers, len(tied))
        assert sorted(round_one) == sorted(chr(ord("a") + slot) for slot in tied)
        assert round_two == round_one


def test_a_server_that_was_busy_for_long_is_first_in_turn_once_and_then_waits_like_all() -> None:
    servers = loaded(0, 0, 0, 9)
    policy = new_policy(NAME)
    sequence(policy, servers, 1000)
    servers[3].in_flight = 0
    names = sequence(policy, servers, 12)
    assert names[0] == "d"
    assert sorted(names[:4]) == sorted(names[4:8]) == sorted(names[8:]) == list("abcd")


def test_a_burst_on_equal_servers_is_level_at_every_step() -> None:
    servers = backends(1, 1, 1, 1, 1)
    policy = new_policy(NAME)
    for _ in range(63):
        burst(policy, servers, 1)
        in_flight = [server.in_flight for server in servers]
        assert max(in_flight) - min(in_flight) <= 1


def test_a_burst_levels_out_what_was_uneven() -> None:
    servers = loaded(7, 0, 3, 0)
    burst(new_policy(NAME), servers, 18)
    assert [server.in_flight for server in servers] == [7, 7, 7, 7]


def test_two_policies_on_one_memory_share_the_turns() -> None:
    memory = fresh_memory()
    one, other = new_policy(NAME, memory=memory), new_policy(NAME, memory=memory)
    servers = backends(1, 1, 1)
    assert "".join(sequence(policy, servers, 1) for policy in (one, one, other, one, other, other)) == "abcabc"


def test_a_single_server_is_picked_however_loaded() -> None:
    assert sequence(new_policy(NAME), loaded(10**6), 2) == "aa"


def test_a_server_added_to_idle_ones_takes_its_share_at_once() -> None:
    servers = backends(2, 1, 1)
    policy = new_policy(NAME)
    sequence(policy, servers[:2], 300)
    # One turn may be gained by the newcomer.
    found = counts(sequence(policy, servers, 40), servers)
    assert abs(found[0] - 20) <= 1 and abs(found[1] - 10) <= 1 and 10 <= found[2] <= 11


def test_zeroed_memory_still_gives_every_server_its_turn() -> None:
    memory = fresh_memory()
    policy = new_policy(NAME, memory=memory)
    servers = backends(5, 3, 1, 1)
    sequence(policy, servers, 17)
    for cells in (memory.cells, *memory.columns):
        for index in range(8):
            cells[index] = 0
    assert counts(sequence(policy, servers, 10), servers) == [5, 3, 1, 1]
