"""Servers that join and leave pools at run time, in shared memory."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadValue, NotThere, Refused
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, ServerEntry, Standing, free_unused
from prefork_lb.shared.table_lookup import owner_of, server_at, slots_by_key
from prefork_lb.shared.transitions import Check
from prefork_lb.shared.view import view
from tests.unit.shared.breaking import Break, broken_off, length
from tests.unit.shared.conftest import SERVERS
from tests.unit.shared.instance import A, B, C, Instance, moved
from tests.unit.shared.processes import Master
from tests.unit.shared.test_ledger import claim
from tests.unit.shared.test_table import pool


def test_a_server_that_is_added_is_there_with_its_rules(instance: Instance) -> None:
    changes, number = instance.states.changes, instance.segment.cells[at.H_MEMBERS]
    instance.add(C, weight=3, limit=7, backup=True)
    shown = instance.servers[C]
    assert (shown.weight, shown.max_connections, shown.backup, shown.origin) == (3, 7, True, "runtime")
    assert instance.servers[A].origin == "configuration"
    assert instance.states.changes > changes, "else no worker looks"
    assert moved(instance, number) == [(C, Standing.ADDED)]
    assert moved(instance, number + 1) == []


def test_a_server_that_is_removed_is_gone_for_all_who_ask(instance: Instance) -> None:
    slot = instance.remove(B)
    assert sorted(instance.servers) == [A]
    assert ("web", B) not in slots_by_key(instance.segment) and server_at(instance.segment, slot) is None
    assert owner_of(instance.segment, slot) == ("web", B)
    assert moved(instance, 0) == [(B, Standing.REMOVED)]


@pytest.mark.parametrize(("name", "address", "weight", "limit", "error"), [
    ("api", C, 1, 0, NotThere), ("web", A, 1, 0, Refused), ("web", "http://10.0.0.1", 1, 0, Refused),
    ("web", "nonsense", 1, 0, BadValue), ("web", C, 0, 0, BadValue),
    ("web", C, 1001, 0, BadValue), ("web", C, 1, -1, BadValue), ("web", C, 1, 1_000_001, BadValue),
])
def test_what_cannot_be_added_changes_nothing(
        instance: Instance, name: str, address: str, weight: int, limit: int, error: type[Exception]) -> None:
    changes = instance.states.changes
    with pytest.raises(error):
        instance.steering.add_server(name, address, weight, limit, who="me")
    assert (sorted(instance.servers), instance.states.changes) == ([A, B], changes)


def test_a_pool_that_redirects_takes_no_server_without_a_public_address(segment: Segment) -> None:
    instance = Instance(segment, PoolEntry("web", [ServerEntry(A, 1, 0, False)], needs_public=True))
    with pytest.raises(Refused, match="public address"):
        instance.add(B)


def test_there_is_no_more_room_than_was_made(instance: Instance) -> None:
    for number in range(SERVERS - 2):
        instance.add(f"10.0.1.{number}:80")
    with pytest.raises(Refused, match=f"room for {SERVERS} servers only"):
        instance.add(C)
    assert len(instance.servers) == SERVERS


@pytest.mark.parametrize("address", [C, "10.0.0.9:80"])
def test_what_is_not_there_cannot_be_removed(instance: Instance, address: str) -> None:
    with pytest.raises(NotThere):
        instance.remove(address)
    with pytest.raises(NotThere):
        instance.remove(A, "api")


def test_a_server_is_removed_once(instance: Instance) -> None:
    instance.remove(B)
    with pytest.raises(NotThere):
        instance.remove(B)


def test_the_last_server_that_is_no_backup_stays(instance: Instance) -> None:
    instance.add(C, backup=True)
    instance.remove(A)
    with pytest.raises(Refused, match="last server"):
        instance.remove(B)
    instance.remove(C)
    assert sorted(instance.servers) == [B]


def test_a_server_begins_in_the_state_of_its_pools_checks(segment: Segment) -> None:
    instance = Instance(segment, PoolEntry("web", [ServerEntry(A, 1, 0, False)], first_check=Check.CHECKING))
    slot = instance.add(B)
    assert (instance.states.check[slot], instance.states.note(slot)) == (Check.CHECKING, "not checked yet")
    assert instance.states.risen[slot] > 0, "its slow start begins"


def test_a_slot_is_free_when_every_worker_knows_and_no_request_is_left(instance: Instance) -> None:
    other = instance.new_worker(pool(A, B))
    slot = instance.add(C)
    claim(other, slot)
    instance.remove(C)

    def is_held() -> bool:
        free_unused(instance.segment, instance.ledger)
        return owner_of(instance.segment, slot) is not None

    instance.know_all(instance.ledger, other)
    assert is_held(), "a request is left"
    other.release(slot)
    other.adopt_members(instance.segment.cells[at.H_MEMBERS] - 1)
    assert is_held(), "a worker has the server in its view"
    instance.know_all(other)
    assert not is_held()


@pytest.mark.parametrize("column", [at.C_PENALTY, at.C_UNANSWERED, at.C_OWN_WAITING])
def test_what_else_is_under_way_keeps_a_slot_too(instance: Instance, column: int) -> None:
    slot = instance.add(C)
    cell = instance.segment.layout.column(column).start + slot
    instance.segment.cells[cell] = 1
    instance.remove(C)
    instance.know_all()
    free_unused(instance.segment, instance.ledger)
    assert owner_of(instance.segment, slot)
    instance.segment.cells[cell] = 0
    free_unused(instance.segment, instance.ledger)
    assert not owner_of(instance.segment, slot)


def test_a_slot_begins_with_nothing_of_the_server_before(instance: Instance) -> None:
    slot = instance.add(C, weight=5, limit=9)
    claim(instance.ledger, slot)
    instance.ledger.release(slot, failed=True)
    with instance.ledger.locked():
        instance.states.set_admin(slot, Admin.DRAIN)
        instance.states.set_weight(slot, 7)
    instance.states.streak[slot] = 4
    instance.segment.cells[instance.segment.layout.column(at.C_POLICY).start + slot] = 77
    instance.remove(C)
    instance.know_all()
    free_unused(instance.segment, instance.ledger)
    assert instance.add("10.0.0.4:80") == slot
    shown = instance.servers["10.0.0.4:80"]
    assert (shown.weight, shown.max_connections, shown.requests, shown.failures, shown.state) == (1, 0, 0, 0, "ready")
    assert instance.states.streak[slot] == 0
    assert instance.segment.cells[instance.segment.layout.column(at.C_POLICY).start + slot] == 0


def test_a_server_that_comes_back_at_once_keeps_its_claims_and_nothing_else(instance: Instance) -> None:
    slot = instance.add(C, weight=5)
    claim(instance.ledger, slot)
    with instance.ledger.locked():
        instance.states.set_admin(slot, Admin.DRAIN)
    instance.remove(C)
    assert instance.add(C, weight=2) == slot
    shown = instance.servers[C]
    assert (shown.in_flight, shown.weight, shown.state, shown.requests) == (1, 2, "ready", 1)
    instance.ledger.release(slot)
    assert instance.servers[C].in_flight == 0


def test_requests_of_removed_servers_count_in_their_pool(instance: Instance) -> None:
    claim(instance.ledger, slots_by_key(instance.segment)["web", B])
    instance.remove(B)
    assert view(instance.segment).pools[0].in_flight == 1


def test_the_retry_budget_counts_no_request_of_a_server_that_comes_or_goes(instance: Instance) -> None:
    block = instance.segment.layout.pool(0)
    slot = instance.add(C)
    for _ in range(5):
        claim(instance.ledger, slot)
    instance.remove(C)
    assert instance.segment.cells[block + at.P_REQUESTS] == -5, "the pool's servers have had five fewer by now"
    instance.add(C)
    assert instance.segment.cells[block + at.P_REQUESTS] == 0


def test_what_operators_do_is_an_event(instance: Instance) -> None:
    instance.add(C, weight=3, limit=9)
    instance.steering.set_admin("web", C, Admin.DRAIN, "me")
    instance.steering.set_admin("web", C, Admin.DRAIN, "me")
    instance.steering.set_weight("web", C, 5, "me")
    instance.steering.set_weight("web", C, None, "me")
    instance.remove(C)
    told = [(event.kind, event.text) for event in recent(instance.segment) if event.who == "me"]
    assert told == [
        ("server-added", "weight 3, max_connections 9"), ("admin", "drain, before: ready"),
        ("weight", "5, before: that of the configuration"), ("weight", "that of the configuration, before: 5"),
        ("server-removed", "with 0 in flight")]


# -- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", Break)
def test_a_change_broken_off_at_any_moment_is_made_or_not(master: Master, how: Break) -> None:
    segment = attach_or_create(master.pid, Layout(6, 4, 4))
    survivor = Instance(segment)
    claim(survivor.ledger, slots_by_key(segment)["web", A])

    def change(what: str) -> object:
        def prepare() -> object:
            mine = Instance.__new__(Instance)
            mine.segment, mine.ledger, mine.states = segment, Ledger(segment), States(segment)
            mine.steering = Steering(segment, mine.ledger, mine.states)
            restore(mine)
            return (lambda: mine.add(C, weight=3)) if what == "add" else (lambda: mine.remove(B))
        return prepare

    for what in ("add", "remove"):
        prepare = change(what)
        last = length(prepare)  # type: ignore[arg-type]
        assert last > 300
        for instruction in range(1, last + 1, max(1, last // 50)):
            restore(survivor)
            before, number = survivor.states.changes, segment.cells[at.H_MEMBERS]
            broken_off(instruction, how, prepare)  # type: ignore[arg-type]
            with survivor.ledger.locked():
                pass  # whoever takes the lock next repairs
            addresses, was_made = sorted(survivor.servers), what == "add"
            assert addresses in ([A, B], [A, B, C] if was_made else [A]), f"{what} broken off at instruction {instruction}"
            if addresses != [A, B]:
                assert survivor.states.changes > before and segment.cells[at.H_MEMBERS] > number, "no worker would look"
                assert not was_made or survivor.servers[C].weight == 3
            survivor.ledger.reclaim_dead()
            assert sum(survivor.ledger.totals) == 1


def restore(instance: Instance) -> None:
    """A and B are in the pool, and C is not."""
    if C in instance.servers:
        instance.remove(C)
    if B not in instance.servers:
        instance.add(B)
    instance.ledger.reclaim_dead()
    instance.know_all()
    free_unused(instance.segment, instance.ledger)
