"""Smooth weighted round robin is nginx's, pick by pick."""
from __future__ import annotations

import pytest

from tests.unit.balance.candidates import SLOTS, backends, counts, fresh_memory, new_policy, sequence

NAME = "weighted-round-robin"

# Computed from nginx's `ngx_http_upstream_get_peer`: one cycle, after which every current value is 0 again.
NGINX = [
    ((5, 1, 1), "aabacaa"),
    ((3, 2, 1), "abacba"),
    ((4, 2, 1), "abacaba"),
    ((1, 1, 1), "abc"),
    ((7,), "a"),
]


@pytest.mark.parametrize(("weights", "cycle"), NGINX)
def test_sequence_is_that_of_nginx_cycle_after_cycle(weights: tuple[int, ...], cycle: str) -> None:
    memory = fresh_memory()
    policy = new_policy(NAME, memory=memory)
    servers = backends(*weights)
    for _ in range(3):
        assert sequence(policy, servers, len(cycle)) == cycle
        assert list(memory.columns[0]) == [0] * SLOTS


def test_shares_are_exact_after_every_whole_cycle() -> None:
    servers = backends(13, 7, 3, 1)
    policy = new_policy(NAME)
    for _ in range(5):
        assert counts(sequence(policy, servers, 24), servers) == [13, 7, 3, 1]


def test_two_policies_on_one_memory_make_one_sequence() -> None:
    """Two workers: what one picks, the other does not pick again."""
    memory = fresh_memory()
    one, other = new_policy(NAME, memory=memory), new_policy(NAME, memory=memory)
    servers = backends(5, 1, 1)
    names = "".join(sequence(policy, servers, 1) for policy in (one, other, other, one, other, one, one))
    assert names == "aabacaa"


def test_a_server_that_is_left_out_for_a_while_gets_its_share_again_and_no_burst() -> None:
    servers = backends(2, 1, 1)
    policy = new_policy(NAME)
    sequence(policy, servers, 6)
    without_a = counts(sequence(policy, servers[1:], 40), servers)
    # In the middle of a cycle the values of b and c differ, so their turns are even but for one.
    assert without_a in ([0, 20, 20], [0, 19, 21], [0, 21, 19])
    after = sequence(policy, servers, 40)
    assert all(abs(count - exact) <= 1 for count, exact in zip(counts(after, servers), (20, 10, 10), strict=True))
    assert "aaa" not in after


def test_a_server_added_later_starts_at_its_share() -> None:
    servers = backends(1, 1, 2)
    policy = new_policy(NAME)
    sequence(policy, servers[:2], 11)
    assert counts(sequence(policy, servers, 40), servers) == [10, 10, 20]


def test_shares_hold_after_a_server_was_removed_in_the_middle_of_a_cycle() -> None:
    """Its current value leaves the sum for ever; nobody else's share may depend on that."""
    servers = backends(5, 3, 2)
    policy = new_policy(NAME)
    sequence(policy, servers, 7)
    # A value is within the sum of the weights of 0, so a share is off by less than one cycle's worth in any run.
    found = counts(sequence(policy, servers[1:], 1000), servers)
    assert found[0] == 0
    assert abs(found[1] - 600) <= 3 and abs(found[2] - 400) <= 3
