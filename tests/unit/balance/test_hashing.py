"""The policies hash and consistent-hash: keys to servers, without a key, and with bounded load."""
from __future__ import annotations

from collections.abc import Sequence

import pytest

from prefork_lb.balance.caps import Caps
from prefork_lb.balance.keyed import CandidateLoads, KeyedPolicy
from prefork_lb.balance.policy import PolicyOptions
from tests.unit.balance.candidates import REQUEST, AnyRequest, Backend, new_policy

BOTH = ("hash", "consistent-hash")
KEYS = [b"user-%d" % number for number in range(2000)]


@pytest.mark.parametrize("name", BOTH)
def test_a_key_stays_whatever_the_place_of_its_server_in_the_list(name: str) -> None:
    servers = [Backend(slot, name=f"10.0.0.{slot}:80") for slot in range(6)]
    turned = [Backend(5 - slot, name=f"10.0.0.{slot}:80") for slot in range(6)][::-1]
    one, other = new_policy(name, servers=servers), new_policy(name, seed=9, servers=turned)
    for key in KEYS:
        assert one.pick(servers, AnyRequest(key=key)).name == other.pick(turned, AnyRequest(key=key)).name


@pytest.mark.parametrize("name", BOTH)
def test_a_server_that_cannot_be_picked_loses_its_keys_to_all_others_for_as_long(name: str) -> None:
    servers = [Backend(slot) for slot in range(5)]
    policy = new_policy(name, servers=servers)
    before = [policy.pick(servers, AnyRequest(key=key)).name for key in KEYS]
    during = [policy.pick(servers[1:], AnyRequest(key=key)).name for key in KEYS]
    after = [policy.pick(servers, AnyRequest(key=key)).name for key in KEYS]
    assert after == before
    moved = [(was, now) for was, now in zip(before, during, strict=True) if was != now]
    assert {was for was, _ in moved} == {"a"} and {now for _, now in moved} == set("bcde")


@pytest.mark.parametrize("name", BOTH)
def test_a_request_without_a_key_goes_to_the_least_connections(name: str) -> None:
    servers = [Backend(0, 1, 3), Backend(1, 1, 1), Backend(2, 1, 2)]
    assert new_policy(name, servers=servers).pick(servers, REQUEST).name == "b"


@pytest.mark.parametrize("name", BOTH)
def test_backups_have_keys_only_when_no_other_server_is_left(name: str) -> None:
    servers = [Backend(0), Backend(1), Backend(2, backup=True), Backend(3, backup=True)]
    policy = new_policy(name, servers=servers)
    assert {policy.pick(servers[:2], AnyRequest(key=key)).name for key in KEYS} == {"a", "b"}
    backups = [policy.pick(servers[2:], AnyRequest(key=key)).name for key in KEYS]
    assert set(backups) == {"c", "d"}
    assert backups == [policy.pick(servers[2:], AnyRequest(key=key)).name for key in KEYS]


def test_plain_hash_does_not_look_at_load() -> None:
    servers = [Backend(slot) for slot in range(4)]
    policy = new_policy("hash", servers=servers)
    home = policy.pick(servers, AnyRequest(key=b"hot"))
    home.in_flight = 10_000  # type: ignore[misc]
    assert policy.pick(servers, AnyRequest(key=b"hot")) is home


@pytest.mark.parametrize(("in_flight", "percent", "weights", "caps"), [
    (9, 150, (1, 1, 1), [5, 5, 5]),
    (9, 125, (1, 2, 1), [3, 6, 4]),
    (0, 125, (1, 1, 1), [1, 1, 1]),
])
def test_the_caps_are_haproxys(in_flight: int, percent: int, weights: tuple[int, ...], caps: list[int]) -> None:
    servers = [Backend(slot, weight) for slot, weight in enumerate(weights)]
    slots = ((in_flight + 1) * percent + 99) // 100
    for server, cap in zip(servers, caps, strict=True):
        server.in_flight = cap
        assert not Caps(servers).has_room(server, slots)
        server.in_flight = cap - 1
        assert Caps(servers).has_room(server, slots)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (5, 3, 1, 1)])
@pytest.mark.parametrize("factor", [1.0, 1.25, 2.0])
def test_one_hot_key_gives_no_server_more_than_its_cap(weights: tuple[int, ...], factor: float) -> None:
    servers = [Backend(slot, weight) for slot, weight in enumerate(weights)]
    policy = new_policy("consistent-hash", servers=servers, options=PolicyOptions(load_factor=factor))
    for number in range(1, 301):
        policy.pick(servers, AnyRequest(key=b"hot")).in_flight += 1  # type: ignore[misc]
        for server in servers:
            assert server.in_flight <= -(-number * factor * server.weight // sum(weights)) + 1
    loads = sorted(server.in_flight / server.weight for server in servers)
    assert loads[-1] <= factor * 300 / sum(weights) + 1


def test_without_a_factor_a_hot_key_stays_on_one_server() -> None:
    servers = [Backend(slot) for slot in range(4)]
    policy = new_policy("consistent-hash", servers=servers, options=PolicyOptions(load_factor=0))
    for _ in range(100):
        policy.pick(servers, AnyRequest(key=b"hot")).in_flight += 1  # type: ignore[misc]
    assert sorted(server.in_flight for server in servers) == [0, 0, 0, 100]


class TwoOfThree(CandidateLoads):
    """A third server is idle, and was tried already."""

    def __init__(self, candidates: Sequence[Backend], everybody: Sequence[Backend]) -> None:
        super().__init__(candidates)
        self._everybody = everybody

    def total(self) -> int:
        return sum(server.in_flight for server in self._everybody)

    def caps(self) -> Caps:
        return Caps(self._everybody)


def test_when_all_that_are_left_have_too_much_the_least_loaded_is_picked() -> None:
    servers = [Backend(0, 1, 9), Backend(1, 1, 8), Backend(2, 1, 0)]
    policy = new_policy("consistent-hash", servers=servers)
    assert isinstance(policy, KeyedPolicy)
    for key in KEYS[:50]:
        found = policy.choose(policy.order(key), TwoOfThree(servers[:2], servers))
        assert found is servers[1]
