"""Rendezvous hashing: shares by weight, and which keys move when servers come and go."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from prefork_lb.balance.rendezvous import Rendezvous
from tests.unit.balance.candidates import Backend

KEYS = [b"key-%d" % number for number in range(6_000)]


def servers(*weights: int) -> list[Backend]:
    return [Backend(slot, weight, name=f"10.0.0.{slot + 1}:8001") for slot, weight in enumerate(weights)]


def homes(found: Sequence[Backend]) -> list[str]:
    """The name of the preferred server of every key."""
    rendezvous = Rendezvous(found)
    return [next(rendezvous.order(key)).name for key in KEYS]


@pytest.mark.parametrize("weights", [(1, 1, 1), (1,) * 10, (5, 3, 1, 1), (100, 200), (1, 1000)])
def test_each_server_has_keys_by_its_weight(weights: tuple[int, ...]) -> None:
    share = Counter(homes(servers(*weights)))
    for server in servers(*weights):
        exact = server.weight / sum(weights)
        # Of n keys a share s has a standard deviation of sqrt(n s); of the 65,536 parts as well. Four of them.
        bound = 4 * (len(KEYS) * exact * (1 + len(KEYS) / 65536)) ** 0.5
        assert abs(share[server.name] - len(KEYS) * exact) < bound, (server.name, share)


@pytest.mark.parametrize("weights", [(1,) * 5, (5, 3, 1, 1, 2)])
def test_a_server_that_goes_takes_its_own_keys_with_it_and_no_other(weights: tuple[int, ...]) -> None:
    before = homes(servers(*weights))
    for gone in range(len(weights)):
        left = servers(*weights)
        lost = left.pop(gone).name
        after = homes(left)
        assert all(was == now for was, now in zip(before, after, strict=True) if was != lost)
        takers = Counter(now for was, now in zip(before, after, strict=True) if was == lost)
        assert set(takers) == {server.name for server in left}, "its keys are shared by all others"


def test_more_weight_takes_keys_from_the_others_and_gives_none() -> None:
    before, after = homes(servers(1, 1, 1)), homes(servers(1, 2, 1))
    moved = {now for was, now in zip(before, after, strict=True) if was != now}
    assert moved == {"10.0.0.2:8001"}


def test_the_order_of_the_configuration_does_not_matter() -> None:
    found = servers(5, 3, 1, 1)
    rng = random.Random(3)
    shuffled = rng.sample(found, len(found))
    assert homes(found) == homes(shuffled)


def test_all_servers_come_once_and_the_second_is_the_first_without_the_first() -> None:
    found = servers(*[1] * 9)
    rendezvous = Rendezvous(found)
    for key in KEYS[:300]:
        order = list(rendezvous.order(key))
        assert sorted(server.slot for server in order) == list(range(9))
        assert order[1:] == list(Rendezvous([server for server in found if server is not order[0]]).order(key))


def test_the_picks_are_the_same_in_every_process_and_version() -> None:
    """What moves here moves every key of every site at its next upgrade."""
    rendezvous = Rendezvous(servers(1, 1, 1, 2, 2))
    assert "".join(next(rendezvous.order(key)).name[7] for key in KEYS[:40]) == PICKS


PICKS = "4125214542445352254452132554133524124344"


def test_without_servers_there_is_none() -> None:
    assert list(Rendezvous([]).order(b"x")) == []


def test_one_server_has_all_keys() -> None:
    assert set(homes(servers(7))) == {"10.0.0.1:8001"}
