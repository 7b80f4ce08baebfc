"""Turns that sessions take without a pick: the others' picks make up for them."""
from __future__ import annotations

from collections.abc import Sequence

import pytest

from prefork_lb.balance.policy import TakesTurns
from tests.unit.balance.candidates import Backend, backends, new_policy, sequence


@pytest.mark.parametrize("name", ["round-robin", "least-connections", "weighted-round-robin"])
def test_a_server_whose_turn_a_session_took_is_passed_over(name: str) -> None:
    servers: Sequence[Backend] = backends(1, 1, 1)
    policy = new_policy(name)
    assert isinstance(policy, TakesTurns)
    assert sequence(policy, servers, 1) == "a"
    policy.took(servers[1], tuple(servers))
    assert sequence(policy, servers, 3) == "cab"


@pytest.mark.parametrize("name", ["least-connections", "weighted-round-robin"])
def test_shares_go_by_weight_with_the_turns_of_sessions_counted_in(name: str) -> None:
    """Every third request is a session of one server, which is its share: the others' picks leave it alone."""
    servers = backends(4, 4, 4)
    servers[2].in_flight = servers[1].in_flight = servers[0].in_flight = 1
    policy = new_policy(name)
    assert isinstance(policy, TakesTurns)
    candidates = tuple(servers)
    picked = ""
    for _ in range(30):
        policy.took(servers[2], candidates)
        picked += sequence(policy, servers, 2)
    assert picked.count("c") <= 2 and abs(picked.count("a") - picked.count("b")) <= 2


def test_sessions_hold_a_server_back_for_one_round_at_most() -> None:
    """As in nginx: after any number of them it has its turn again within a round or two."""
    servers = backends(1, 1, 1)
    policy = new_policy("weighted-round-robin")
    assert isinstance(policy, TakesTurns)
    for _ in range(100):
        policy.took(servers[0], tuple(servers))
    assert "a" in sequence(policy, servers, 6)


def test_new_weights_count_from_the_next_turn_on() -> None:
    policy = new_policy("least-connections")
    assert isinstance(policy, TakesTurns)
    servers = backends(1, 1)
    for candidates in (tuple(servers), tuple(backends(3, 1))):
        for _ in range(3):
            policy.took(candidates[0], candidates)
    assert sequence(policy, servers, 2) == "ba"
