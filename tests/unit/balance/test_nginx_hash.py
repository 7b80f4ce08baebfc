"""nginx's picks, by vectors computed from its sources; tests/integration holds them against a real nginx."""
from __future__ import annotations

from itertools import islice

import pytest

from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.policy import PolicyOptions
from tests.unit.balance.candidates import REQUEST, AnyRequest, Backend, new_policy

NGINX, KETAMA = PolicyOptions(compatible="nginx"), PolicyOptions(compatible="nginx-ketama")


def made(options: PolicyOptions, *servers: Backend) -> KeyedPolicy:
    name = "hash" if options is NGINX else "consistent-hash"
    policy = new_policy(name, servers=servers, options=options)
    assert isinstance(policy, KeyedPolicy)
    return policy


def three() -> list[Backend]:
    return [Backend(slot, name=f"10.0.0.{slot + 1}:80") for slot in range(3)]


@pytest.mark.parametrize(("key", "tries"), [(b"/a", [2, 1, 3]), (b"/b", [3, 2, 1]), (b"user42", [1, 1, 3])])
def test_hash_tries_servers_in_nginx_order(key: bytes, tries: list[int]) -> None:
    order = made(NGINX, *three()).order(key)
    assert [server.slot + 1 for server in islice(order, 3)] == tries


@pytest.mark.parametrize(("key", "home"), [(b"/a", 1), (b"/b", 3), (b"/c", 2), (b"user42", 3)])
def test_ketama_finds_nginx_server(key: bytes, home: int) -> None:
    assert next(made(KETAMA, *three()).order(key)).slot + 1 == home


def test_ketama_has_nginx_points() -> None:
    from prefork_lb.balance import nginx_hash

    points, owners = nginx_hash.ketama_ring((("10.0.0.1:80", 1),))
    assert {2729270614, 199143595, 1978666075} <= set(points)
    assert len(points) == 160 and set(owners) == {0}


def test_weights_count() -> None:
    heavy, light = Backend(0, 9, name="10.0.0.1:80"), Backend(1, 1, name="10.0.0.2:80")
    for options in (NGINX, KETAMA):
        policy = made(options, heavy, light)
        found = [next(policy.order(b"%d" % number)).slot for number in range(2000)]
        assert 0.85 < found.count(0) / 2000 < 0.95


def test_a_server_that_cannot_be_picked_is_passed_over() -> None:
    servers = three()
    for options, key in ((NGINX, b"/a"), (KETAMA, b"/a")):
        policy = made(options, *servers)
        first = policy.pick(servers, AnyRequest(key=key))
        rest = [server for server in servers if server is not first]
        assert policy.pick(rest, AnyRequest(key=key)) in rest


@pytest.mark.parametrize("options", [NGINX, KETAMA])
def test_after_twenty_tries_and_without_a_key_it_is_weighted_round_robin(options: PolicyOptions) -> None:
    """A server with one part of a thousand is found by a hash in 21 tries for few keys only."""
    servers = [Backend(0, 999, name="10.0.0.1:80"), *(Backend(n, 1, name=f"10.0.0.{n + 1}:80") for n in (1, 2))]
    policy = made(options, *servers)
    light = servers[1:]
    picks = [policy.pick(light, AnyRequest(key=b"key-%d" % n)).slot for n in range(200)]
    assert 90 <= picks.count(1) <= 110
    assert [policy.pick(light, REQUEST).slot for _ in range(4)] in ([1, 2, 1, 2], [2, 1, 2, 1])


@pytest.mark.parametrize(("address", "identity"), [
    ("10.0.0.1:80", b"10.0.0.1\x0080"), ("https://a.test:8443", b"a.test\x008443"), ("[::1]:80", b"[::1]\x0080"),
    ("unix:/run/a.sock", b"/run/a.sock\x00"),
])
def test_a_server_is_known_by_host_and_port(address: str, identity: bytes) -> None:
    from prefork_lb.balance import nginx_hash

    assert nginx_hash.identity(address) == identity


@pytest.mark.parametrize("options", [NGINX, KETAMA])
def test_backups_take_turns(options: PolicyOptions) -> None:
    """nginx has no backups beside `hash`."""
    backups = [Backend(1, name="10.0.0.2:80", backup=True), Backend(2, name="10.0.0.3:80", backup=True)]
    policy = made(options, Backend(0, name="10.0.0.1:80"), *backups)
    assert [policy.pick(backups, AnyRequest(key=b"x")).slot for _ in range(4)] == [1, 2, 1, 2]
