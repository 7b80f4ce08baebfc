"""A pool's servers that come and go at run time, as one worker sees them."""
from __future__ import annotations

from collections.abc import Sequence

import pytest

from prefork_lb.balance.hashed import Hash
from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.native.loader import FastClaims, native
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Member
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, PoolSlots, ServerEntry, enter, free_unused
from prefork_lb.shared.table_lookup import owner_of, slots_by_key
from prefork_lb.upstream.compiled_picker import fast_claims
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server
from tests.unit.balance.candidates import REQUEST, new_policy
from tests.unit.upstream.parts import NotedStream, make_pool, new_member, new_server

NAMES = [f"127.0.0.1:{8000 + number}" for number in range(8)]
A, B, C, D = NAMES[:4]


def entry(*names: str, weight: int = 1, backups: Sequence[str] = ()) -> PoolEntry:
    return PoolEntry("web", [ServerEntry(name, weight, 0, name in backups) for name in names])


class Instance:
    """Workers with pools of their own in one segment, and an operator."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.states = States(segment)
        self.ledger = Ledger(segment, takes_row=False)
        self._steering = Steering(segment, self.ledger, self.states)

    def worker(self, *names: str, policy: str = "least-connections", is_native: bool = False, is_reload: bool = False,
               ) -> tuple[Ledger, Pool]:
        """A worker whose configuration names these servers; their slots are 0, 1, ... in their order here."""
        ledger = Ledger(self.segment)
        slots = self.enter(ledger, *names, is_reload=is_reload)
        servers = [new_server(int(name[-1])) for name in names]
        for server, slot in zip(servers, slots.slots, strict=True):
            server.slot = slot
        made = new_policy(policy)
        if is_native:
            def picker(usable: Sequence[Server], seen: int) -> FastClaims | None:
                return fast_claims(made, usable, slots, ledger, seen)
            return ledger, make_pool(ledger, servers, made, make_fast_claims=picker)
        return ledger, make_pool(ledger, servers, made)

    def enter(self, ledger: Ledger, *names: str, is_reload: bool = False) -> PoolSlots:
        with ledger.locked():
            return enter(self.segment, ledger, [entry(*names)], is_reload)["web"]

    def add(self, name: str, weight: int = 1, limit: int = 0, backup: bool = False) -> None:
        self._steering.add_server("web", name, weight, limit, backup, who="me")

    def remove(self, name: str) -> int:
        return self._steering.remove_server("web", name, who="me")


@pytest.fixture
def instance(segment: Segment) -> Instance:
    return Instance(segment)


def names(pool: Pool) -> list[str]:
    pool.choice  # noqa: B018  # a look
    return [server.name for server in pool.servers]


def picked(pool: Pool, count: int) -> set[str]:
    leases = [pool.lease(REQUEST, ()) for _ in range(count)]
    found = {lease.server.name for lease in leases}
    for lease in leases:
        lease.succeed(reusable=False)
    return found


@pytest.mark.parametrize("is_native", [False, True])
def test_a_change_is_in_force_at_the_next_pick_of_every_worker(instance: Instance, is_native: bool) -> None:
    if is_native and native() is None:
        pytest.skip("the compiled module is missing")
    (_, one), (_, other) = instance.worker(A, B, is_native=is_native), instance.worker(A, B, is_native=is_native)
    assert picked(one, 4) == picked(other, 4) == {A, B}
    instance.add(C)
    assert picked(one, 6) == picked(other, 6) == {A, B, C}
    instance.remove(A)
    assert picked(one, 4) == picked(other, 4) == {B, C}
    assert one.servers[1].in_flight <= 2


def test_added_servers_follow_those_of_the_configuration_in_the_order_in_which_they_came(instance: Instance) -> None:
    _, pool = instance.worker(C, B)
    instance.add(D)
    instance.add(A)
    assert names(pool) == [C, B, D, A]
    _, newest = instance.worker(C, B)
    assert names(newest) == [C, B, D, A]
    instance.remove(C)
    instance.add(C)
    assert names(pool) == names(newest) == [C, B, D, A], "the configuration has a place for it"


def test_an_added_server_has_its_own_weight_limit_and_role(instance: Instance) -> None:
    _, pool = instance.worker(A)
    instance.add(B, weight=7, limit=3, backup=True)
    assert names(pool) == [A, B]
    added = pool.servers[1]
    assert (added.weight, added.max_connections, added.backup) == (7, 3, True)
    assert picked(pool, 4) == {A}, "a backup"


def test_a_server_that_is_removed_and_added_again_is_another_with_its_new_weight(instance: Instance) -> None:
    _, pool = instance.worker(A, B)
    before = pool.servers[1]
    instance.remove(B)
    instance.add(B, weight=5)
    assert names(pool) == [A, B]
    assert pool.servers[1] is not before and pool.servers[1].weight == 5 and pool.servers[1].slot == before.slot
    assert pool.servers[0].weight == 1


def test_what_did_not_move_stays_the_same_server(instance: Instance) -> None:
    _, pool = instance.worker(A, B)
    instance.add(C)
    first = names(pool) and pool.servers
    instance.add(D)
    instance.remove(A)
    assert names(pool) == [B, C, D]
    assert pool.servers[:2] == first[1:]


def test_a_removed_servers_connections_are_closed_those_in_use_when_they_come_back(instance: Instance) -> None:
    ledger, pool = instance.worker(A, B)
    server, idle, in_use = pool.servers[1], NotedStream(), NotedStream()
    server.idle.put(idle)
    lease = pool.lease(REQUEST, (pool.servers[0],))
    lease.stream = in_use
    instance.remove(B)
    pool.tick()
    assert (idle.closed, in_use.closed) == (1, 0)
    lease.succeed(reusable=True)
    assert in_use.closed == 1
    assert ledger.totals[server.slot] == 0
    pool.tick()
    late = NotedStream()
    server.idle.put(late)
    assert late.closed == 1


def test_a_worker_that_has_no_request_looks_too(instance: Instance) -> None:
    _, pool = instance.worker(A, B)
    instance.remove(B)
    assert pool.seen_members == 0
    pool.tick()
    assert [server.name for server in pool.servers] == [A]
    assert pool.seen_members == instance.segment.cells[at.H_MEMBERS]


def test_the_slot_is_free_when_all_workers_have_looked(instance: Instance) -> None:
    workers = [instance.worker(A), instance.worker(A)]
    instance.add(B)
    slot = instance.remove(B)
    for ledger, pool in workers:
        free_unused(instance.segment, ledger)
        assert owner_of(instance.segment, slot)
        pool.tick()
        ledger.adopt_members(pool.seen_members)
    free_unused(instance.segment, workers[0][0])
    assert owner_of(instance.segment, slot) is None


def test_an_old_worker_keeps_an_added_server_that_becomes_the_configurations(instance: Instance) -> None:
    _, old = instance.worker(A)
    instance.add(B, weight=4)
    assert names(old) == [A, B]
    _, new = instance.worker(B, is_reload=True)
    assert names(new) == [B] and new.servers[0].weight == 1
    assert names(old) == [A, B]


def test_a_reload_brings_a_removed_server_back_to_all_workers(instance: Instance) -> None:
    _, old = instance.worker(A, B)
    instance.remove(B)
    assert names(old) == [A]
    _, new = instance.worker(A, B, is_reload=True)
    assert names(new) == names(old) == [A, B]


def test_a_worker_whose_own_servers_are_all_gone_uses_those_of_a_newer_configuration(instance: Instance) -> None:
    """It lingers, and its clients' next requests must not fail."""
    _, old = instance.worker(A)
    instance.worker(A, B, is_reload=True)
    instance.remove(A)
    assert names(old) == [B]
    assert picked(old, 2) == {B}


def test_a_server_that_cannot_be_made_is_left_out_by_this_worker(instance: Instance) -> None:
    ledger = Ledger(instance.segment)
    slots = instance.enter(ledger, A)
    server = new_server(0)
    server.slot = slots.slots[0]

    def make(member: Member) -> Server | None:
        return None if member.address == B else new_member(member)

    pool = make_pool(ledger, [server], new_policy("round-robin"), make_server=make)
    instance.add(B)
    instance.add(C)
    assert names(pool) == [A, C]


def test_keys_of_a_removed_server_move_and_no_others(instance: Instance) -> None:
    ledger = Ledger(instance.segment)
    slots = instance.enter(ledger, A, B, C)
    servers = [new_server(number) for number in range(3)]
    for server, slot in zip(servers, slots.slots, strict=True):
        server.slot = slot
    memory = PolicyMemory(slots.cells, slots.columns)
    policy = Hash(PolicySetup(None, memory, servers))  # type: ignore[arg-type]
    pool = make_pool(ledger, servers, policy)
    keys = [b"key-%d" % number for number in range(200)]

    def homes() -> dict[bytes, str]:
        pool.choice  # noqa: B018
        return {key: next(policy.order(key)).name for key in keys}

    before = homes()
    instance.remove(B)
    after = homes()
    assert {key for key in keys if before[key] != after[key]} == {key for key in keys if before[key] == B}
    instance.add(D, weight=3)
    newest = homes()
    assert {newest[key] for key in keys if newest[key] != after[key]} == {D}
    assert list(newest.values()).count(D) > 80, "its weight counts: 3 of 5"


def test_states_of_an_added_server_count_at_once(instance: Instance) -> None:
    _, pool = instance.worker(A)
    instance.add(B)
    slot = slots_by_key(instance.segment)["web", B]
    with instance.ledger.locked():
        instance.states.set_admin(slot, Admin.DRAIN)
    assert picked(pool, 4) == {A}
