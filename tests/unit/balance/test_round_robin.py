"""Round robin: strict turns, whoever is missing for a while."""
from __future__ import annotations

import random

from tests.unit.balance.candidates import backends, counts, fresh_memory, new_policy, sequence

NAME = "round-robin"


def test_servers_take_turns_in_the_order_of_the_configuration() -> None:
    assert sequence(new_policy(NAME), backends(1, 1, 1), 7) == "abcabca"


def test_weights_and_load_do_not_count() -> None:
    servers = backends(9, 1, 1)
    servers[1].in_flight = 50
    assert sequence(new_policy(NAME), servers, 6) == "abcabc"


def test_two_policies_on_one_memory_make_one_sequence() -> None:
    memory = fresh_memory()
    one, other = new_policy(NAME, memory=memory), new_policy(NAME, memory=memory)
    servers = backends(1, 1, 1)
    assert "".join(sequence(policy, servers, 1) for policy in (one, one, other, one, other, other)) == "abcabc"


def test_a_skipped_server_is_passed_over_and_nobody_is_doubled() -> None:
    servers = backends(1, 1, 1, 1)
    policy = new_policy(NAME)
    assert sequence(policy, servers, 2) == "ab"
    assert sequence(policy, [servers[0], servers[1], servers[3]], 4) == "dabd"
    # c was due all the time and is served first, once; then the turns go on from whoever waited longest.
    assert sequence(policy, servers, 8) == "cabdcabd"


def test_with_random_gaps_the_pick_is_always_the_candidate_that_waited_longest() -> None:
    rng = random.Random(20)
    servers = backends(*[1] * 7)
    policy = new_policy(NAME)
    last = [0] * len(servers)
    for turn in range(1, 2000):
        candidates = [server for server in servers if rng.random() < 0.6] or servers
        picked = ord(sequence(policy, candidates, 1)) - ord("a")
        assert last[picked] == min(last[server.slot] for server in candidates)
        last[picked] = turn


def test_a_server_that_comes_back_gets_one_turn_not_all_that_it_missed() -> None:
    servers = backends(1, 1, 1)
    policy = new_policy(NAME)
    sequence(policy, servers[:2], 100)
    assert sequence(policy, servers, 6) == "cabcab"


def test_removing_and_adding_servers_keeps_the_others_exact() -> None:
    servers = backends(1, 1, 1, 1)
    policy = new_policy(NAME)
    sequence(policy, servers, 5)
    found = sequence(policy, servers[1:], 300) + sequence(policy, servers, 400)
    assert counts(found, servers) == [100, 200, 200, 200]


def test_zeroed_memory_starts_the_sequence_anew() -> None:
    """After a crash inside the lock every policy's memory is zeroed."""
    memory = fresh_memory()
    policy = new_policy(NAME, memory=memory)
    servers = backends(1, 1, 1)
    sequence(policy, servers, 5)
    for cells in (memory.cells, memory.columns[0]):
        for index in range(8):
            cells[index] = 0
    assert sequence(policy, servers, 4) == "abca"
