"""Pools whose policy goes by the request's key: which servers it looks at, and that it equals a look at all of them."""
from __future__ import annotations

import random

import pytest

from prefork_lb.balance.policy import Policy, PolicyOptions
from prefork_lb.errors import PoolFull
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.upstream.availability import AvailabilityRules
from prefork_lb.upstream.keyed_loads import KeyedLoads
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server
from tests.unit.balance.candidates import OPTIONS, AnyRequest, new_policy
from tests.unit.upstream.parts import make_pool, new_server

KEYS = [b"user-%d" % number for number in range(60)]


def keyed_pool(ledger: Ledger, *servers: Server, policy: str = "hash", options: PolicyOptions = OPTIONS) -> Pool:
    made: Policy = new_policy(policy, servers=servers, options=options)
    pool = make_pool(ledger, servers, made)
    pool.key_of = lambda request: request.target
    return pool


def home(pool: Pool, key: bytes, tried: tuple[Server, ...] = ()) -> Server:
    """The server that a request with this key gets; its claim is given back."""
    lease = pool.lease(AnyRequest(target=key), tried)
    lease.abandon()
    return lease.server


def test_a_key_has_one_server_and_the_keys_have_all_servers(ledger: Ledger) -> None:
    pool = keyed_pool(ledger, *(new_server(slot) for slot in range(4)))
    homes = [home(pool, key) for key in KEYS]
    assert homes == [home(pool, key) for key in KEYS]
    assert set(homes) == set(pool.servers)


def test_two_workers_agree(segment: Segment) -> None:
    one, other = (keyed_pool(Ledger(segment), *(new_server(slot) for slot in range(4))) for _ in range(2))
    assert [home(one, key).slot for key in KEYS] == [home(other, key).slot for key in KEYS]


def test_a_full_or_tried_server_is_passed_over_for_the_next_of_the_key(ledger: Ledger) -> None:
    servers = [new_server(slot, limit=1) for slot in range(3)]
    pool = keyed_pool(ledger, *servers)
    for key in KEYS[:10]:
        first = home(pool, key)
        second = home(pool, key, (first,))
        third = home(pool, key, (first, second))
        assert len({first, second, third}) == 3
        leases = [pool.lease(AnyRequest(target=key), ()) for _ in servers]
        assert [lease.server for lease in leases] == [first, second, third]
        with pytest.raises(PoolFull):
            pool.lease(AnyRequest(target=key), ())
        for lease in leases:
            lease.abandon()


def test_the_keys_of_a_drained_server_move_and_come_back(ledger: Ledger) -> None:
    pool = keyed_pool(ledger, *(new_server(slot) for slot in range(4)))
    states = States(ledger.segment)
    before = [home(pool, key) for key in KEYS]
    gone = pool.servers[1]
    with ledger.locked():
        states.set_admin(gone.slot, Admin.DRAIN)
    for key, was in zip(KEYS, before, strict=True):
        now = home(pool, key)
        assert now is not gone and (was is gone or now is was)
    with ledger.locked():
        states.set_admin(gone.slot, Admin.READY)
    assert [home(pool, key) for key in KEYS] == before


@pytest.mark.parametrize(("policy", "compatible"), [
    ("hash", ""), ("consistent-hash", ""), ("hash", "nginx"), ("consistent-hash", "nginx-ketama"),
])
def test_a_weight_set_by_command_gives_a_server_keys_until_it_is_taken_back(ledger: Ledger, policy: str, compatible: str) -> None:
    options = PolicyOptions(compatible=compatible)
    pool = keyed_pool(ledger, *(new_server(slot) for slot in range(4)), policy=policy, options=options)
    states = States(ledger.segment)
    before = [home(pool, key) for key in KEYS]
    heavy = pool.servers[2]
    with ledger.locked():
        states.set_weight(heavy.slot, 5)
    after = [home(pool, key) for key in KEYS]
    assert after.count(heavy) > before.count(heavy)
    assert compatible == "nginx" or all(now in (was, heavy) for was, now in zip(before, after, strict=True))
    with ledger.locked():
        states.set_weight(heavy.slot, 0)
    assert [home(pool, key) for key in KEYS] == before


def test_slow_start_moves_no_key(ledger: Ledger) -> None:
    servers = [new_server(slot) for slot in range(3)]
    pool = make_pool(ledger, servers, new_policy("hash", servers=servers), availability=AvailabilityRules(slow_start_ms=60_000))
    pool.key_of = lambda request: request.target
    before = [home(pool, key) for key in KEYS]
    states = States(ledger.segment)
    for state in (Admin.MAINTENANCE, Admin.READY):
        with ledger.locked():
            states.set_admin(servers[0].slot, state)
    assert [home(pool, key) for key in KEYS] == before
    assert servers[0].weight < servers[1].weight


def test_backups_have_the_keys_when_no_other_server_is_left(ledger: Ledger) -> None:
    primaries = [new_server(0), new_server(1)]
    backups = [new_server(2, backup=True), new_server(3, backup=True)]
    pool = keyed_pool(ledger, *primaries, *backups)
    assert {home(pool, key) for key in KEYS} == set(primaries)
    moved = [home(pool, key, tuple(primaries)) for key in KEYS]
    assert set(moved) == set(backups)
    assert moved == [home(pool, key, tuple(primaries)) for key in KEYS]


def test_a_request_without_a_key_goes_to_the_least_connections(ledger: Ledger) -> None:
    pool = keyed_pool(ledger, *(new_server(slot) for slot in range(3)))
    found = [pool.lease(AnyRequest(target=b""), ()).server.slot for _ in range(6)]
    assert sorted(found[:3]) == sorted(found[3:]) == [0, 1, 2]


@pytest.mark.parametrize(("policy", "options"), [
    ("hash", PolicyOptions()), ("consistent-hash", PolicyOptions()), ("consistent-hash", PolicyOptions(load_factor=1)),
    ("hash", PolicyOptions(compatible="nginx")), ("consistent-hash", PolicyOptions(compatible="nginx-ketama")),
], ids=str)
def test_a_look_at_few_servers_finds_what_a_look_at_all_would(ledger: Ledger, policy: str, options: PolicyOptions) -> None:
    """The pool looks at the servers of the key alone; `pick` is given all candidates."""
    servers = [new_server(slot, weight) for slot, weight in ((0, 1), (1, 3), (2, 1), (5, 2), (7, 1))]
    pool = keyed_pool(ledger, *servers, policy=policy, options=options)
    checked: Policy = new_policy(policy, servers=servers, options=options)
    rng = random.Random(4)
    held: list[Lease] = []
    for _ in range(400):
        key = rng.choice(KEYS[:12])
        # The caps of consistent-hash are those of all usable servers, of which `pick` does not know the ones that were tried.
        tried = tuple(rng.sample(servers, rng.choice((0, 1, 2)))) if options == PolicyOptions() and policy == "hash" else ()
        for server in servers:
            server.in_flight = ledger.totals[server.slot]
        expected = checked.pick([server for server in servers if server not in tried], AnyRequest(key=key))
        held.append(pool.lease(AnyRequest(target=key), tried))
        assert held[-1].server is expected
        if len(held) > rng.randrange(60):
            held.pop(rng.randrange(len(held))).abandon()
    for lease in held:
        lease.abandon()


@pytest.mark.parametrize("slots", [(0,), (3, 4, 5), (0, 1, 4, 6), (0, 2, 4, 6, 7), (7, 1, 2)])
def test_what_is_in_flight_is_that_of_the_pools_own_slots(ledger: Ledger, slots: tuple[int, ...]) -> None:
    for slot in range(8):
        for _ in range(slot + 1):
            with ledger.locked():
                ledger.claim(slot)
    loads = KeyedLoads([new_server(slot) for slot in slots], ledger)
    assert loads.total() == sum(slot + 1 for slot in slots)
    with ledger.locked():
        ledger.penalties[6] = 3
    assert loads.total() == sum(slot + 1 + 3 * (slot == 6) for slot in slots)
