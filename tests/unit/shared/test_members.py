"""Servers that join and leave pools at run time, in shared memory."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadValue, NotThere, Refused
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import recent
from prefork_lb.shared.keys import key_of, owner_of, slots_by_key
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.members import moved_since
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, ServerEntry, Source, Standing, enter, free_unused
from prefork_lb.shared.transitions import Check
from prefork_lb.shared.view import ServerView, view
from tests.unit.shared.breaking import Break, broken_off, length
from tests.unit.shared.conftest import SERVERS
from tests.unit.shared.processes import Master
from tests.unit.shared.test_ledger import claim
from tests.unit.shared.test_table import end_worker, pool

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


class Instance:
    """A worker with the pool `web` of A and B, and an operator."""

    def __init__(self, segment: Segment, *pools: PoolEntry) -> None:
        self.segment = segment
        self.ledger = Ledger(segment)
        self.states = States(segment)
        self.steering = Steering(segment, self.ledger, self.states)
        self.enter(*(pools or [pool(A, B)]), is_reload=True)

    def enter(self, *pools: PoolEntry, is_reload: bool = False) -> None:
        with self.ledger.locked():
            enter(self.segment, self.ledger, pools, is_reload)

    def new_worker(self, *pools: PoolEntry, is_reload: bool = False) -> Ledger:
        ledger = Ledger(self.segment)
        with ledger.locked():
            enter(self.segment, ledger, pools, is_reload)
        return ledger

    def add(self, address: str, name: str = "web", weight: int = 1, limit: int = 0, backup: bool = False) -> int:
        self.steering.add_server(name, address, weight, limit, backup, who="me")
        return slots_by_key(self.segment)[name, address]

    def remove(self, address: str, name: str = "web") -> int:
        return self.steering.remove_server(name, address, who="me")

    def know_all(self, *ledgers: Ledger) -> None:
        """Every worker has rebuilt its pools."""
        for ledger in ledgers or (self.ledger,):
            ledger.adopt_members(self.segment.cells[at.H_MEMBERS])

    @property
    def servers(self) -> dict[str, ServerView]:
        return {server.address: server for server in view(self.segment).servers}


@pytest.fixture
def instance(segment: Segment) -> Instance:
    return Instance(segment)


def moved(instance: Instance, since: int) -> list[tuple[str, Standing]]:
    with instance.ledger.locked():
        return [(each.address, each.standing) for each in moved_since(instance.segment, "web", since)]


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
    assert ("web", B) not in slots_by_key(instance.segment) and key_of(instance.segment, slot) is None
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


# -- workers that come, and reloads -----------------------------------------------------------------------------------


def test_a_worker_that_replaces_a_dead_one_changes_nothing(instance: Instance) -> None:
    instance.add(C, weight=3)
    instance.remove(B)
    number = instance.segment.cells[at.H_MEMBERS]
    instance.new_worker(pool(A, B))
    free_unused(instance.segment, instance.ledger)
    assert sorted(instance.servers) == [A, C]
    assert instance.servers[C].weight == 3
    assert instance.segment.cells[at.H_MEMBERS] == number


def test_the_slot_of_a_removed_server_stays_while_a_configuration_names_it(instance: Instance) -> None:
    slot = instance.remove(B)
    instance.know_all()
    free_unused(instance.segment, instance.ledger)
    assert owner_of(instance.segment, slot) == ("web", B)


def test_a_reload_brings_back_what_the_configuration_names(instance: Instance) -> None:
    slot = slots_by_key(instance.segment)["web", B]
    with instance.ledger.locked():
        instance.states.set_admin(slot, Admin.DRAIN)
    assert instance.remove(B) == slot
    number, changes = instance.segment.cells[at.H_MEMBERS], instance.states.changes
    instance.new_worker(pool(A, B), is_reload=True)
    assert sorted(instance.servers) == [A, B]
    assert instance.servers[B].state == "ready"
    assert moved(instance, number) == [(B, Standing.NAMED)] and instance.states.changes > changes


def test_a_reload_keeps_what_was_added(instance: Instance) -> None:
    instance.add(C, weight=3)
    new = instance.new_worker(pool(A, B), is_reload=True)
    end_worker(instance.segment, 0)
    new.reclaim_dead()
    free_unused(instance.segment, new)
    assert instance.servers[C].weight == 3 and instance.servers[C].origin == "runtime"


def test_an_added_server_that_the_configuration_names_is_the_configurations(instance: Instance) -> None:
    slot = instance.add(C, weight=3)
    new = instance.new_worker(pool(A, C), is_reload=True)
    assert (instance.servers[C].weight, instance.servers[C].origin) == (1, "configuration")
    newest = instance.new_worker(pool(A), is_reload=True)
    for row in (0, 1):
        end_worker(instance.segment, row)
    newest.reclaim_dead()
    free_unused(instance.segment, newest)
    assert sorted(instance.servers) == [A]
    assert owner_of(instance.segment, slot) is None
    del new


def test_an_older_configuration_that_names_an_added_server_does_not_take_it(instance: Instance) -> None:
    """USR2: a worker of the old master starts once more. Only what a master reads anew decides."""
    instance.add(C, weight=3)
    instance.new_worker(pool(A, B, C))
    assert (instance.servers[C].weight, instance.servers[C].origin) == (3, "runtime")


def test_a_pool_that_a_reload_leaves_out_goes_with_its_added_servers(segment: Segment) -> None:
    instance = Instance(segment, pool(A), pool(B, name="api"))
    instance.add(C, "api")
    new = instance.new_worker(pool(A), is_reload=True)
    free_unused(segment, new)
    assert sorted(instance.servers) == [A, B, C], "the old worker serves the pool yet"
    end_worker(segment, 0)
    new.reclaim_dead()
    free_unused(segment, new)
    assert sorted(instance.servers) == [A]
    assert [each.name for each in view(segment).pools] == ["web"]


def test_a_server_that_only_an_old_configuration_names_can_be_added(instance: Instance) -> None:
    new = instance.new_worker(pool(A), is_reload=True)
    end_worker(instance.segment, 0)  # it is not swept yet; a lingering one would be the same
    new.reclaim_dead()
    claim(new, slot := slots_by_key(instance.segment)["web", B])  # a request keeps the slot
    assert instance.add(B, weight=4) == slot
    assert instance.servers[B].weight == 4
    new.release(slot)


def test_a_dead_workers_view_keeps_no_slot_once_it_is_swept(instance: Instance) -> None:
    other = instance.new_worker(pool(A, B))
    slot = instance.add(C)
    claim(other, slot)
    instance.remove(C)
    instance.know_all()
    end_worker(instance.segment, other.row)
    free_unused(instance.segment, instance.ledger)
    assert owner_of(instance.segment, slot)
    instance.ledger.reclaim_dead()
    free_unused(instance.segment, instance.ledger)
    assert not owner_of(instance.segment, slot)


# -- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", Break)
def test_a_change_broken_off_at_any_moment_is_made_or_not(master: Master, how: Break) -> None:
    segment = attach_or_create(master.pid, 6, 4)
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


def follow(instance: Instance, address: str, source: Source = Source.DISCOVERY) -> int:
    instance.steering.add_server("web", address, who="list", source=source)
    return slots_by_key(instance.segment)["web", address]


def test_what_has_added_a_server_alone_removes_it(instance: Instance) -> None:
    follow(instance, C)
    assert (instance.servers[C].source, instance.servers[A].source) == ("discovery", "configuration")
    with pytest.raises(Refused, match=f"{C} comes from discovery, which would add it again; drain it instead"):
        instance.remove(C)
    with pytest.raises(Refused, match="comes from discovery"):
        instance.steering.remove_server("web", C, who="x", source=Source.SCALING)
    instance.steering.remove_server("web", C, who="list", source=Source.DISCOVERY)
    assert sorted(instance.servers) == [A, B]
    instance.add(C)
    assert instance.servers[C].source == "operator"
    instance.remove(C)


def test_a_server_that_was_let_go_is_drained_and_comes_back_as_it_was(instance: Instance) -> None:
    slot = follow(instance, C)
    for before in (Admin.READY, Admin.DRAIN, Admin.MAINTENANCE):
        instance.steering.set_admin("web", C, before, "me")
        for _ in range(2):
            instance.steering.let_go("web", C)
        assert instance.servers[C].leaving and instance.states.admin[slot] == max(before, Admin.DRAIN)
        with pytest.raises(Refused, match="leaving"):
            instance.steering.set_admin("web", C, Admin.READY, "me")
        for _ in range(2):
            instance.steering.keep("web", C)
        assert not instance.servers[C].leaving and instance.states.admin[slot] == before


def test_a_server_that_was_let_go_and_that_the_configuration_names_stays(instance: Instance) -> None:
    slot = follow(instance, C)
    instance.steering.let_go("web", C)
    instance.states.risen[slot] = 0
    instance.new_worker(pool(A, B, C), is_reload=True)
    assert (instance.servers[C].source, instance.servers[C].leaving) == ("configuration", False)
    assert instance.states.admin[slot] == Admin.READY and instance.states.risen[slot] > 0, "its slow start begins"


@pytest.mark.parametrize("break_off_at", range(2))
def test_a_change_of_mind_that_was_broken_off_is_made_whole_by_the_next_look(instance: Instance, break_off_at: int) -> None:
    slot = follow(instance, C)
    if break_off_at == 0:  # between the two stores of `let_go`
        instance.states.leaving[slot] = Admin.READY + 1
    else:  # between the two of `keep`
        instance.steering.let_go("web", C)
        instance.states.set_admin(slot, Admin.READY)
    instance.steering.let_go("web", C)
    assert instance.states.admin[slot] == Admin.DRAIN
    instance.steering.keep("web", C)
    assert (instance.states.admin[slot], instance.servers[C].leaving) == (Admin.READY, False)


def test_a_pool_whose_servers_come_and_go_may_be_empty_for_as_long_as_it_is_named(segment: Segment) -> None:
    empty = PoolEntry("web", [], may_be_empty=True)
    instance = Instance(segment, empty)
    free_unused(segment, instance.ledger)
    follow(instance, C)
    instance.steering.remove_server("web", C, who="list", source=Source.DISCOVERY)
    instance.know_all()
    free_unused(segment, instance.ledger)
    assert [each.name for each in view(segment).pools] == ["web"] and not instance.servers
    follow(instance, A)
    other = instance.new_worker(pool(B, name="other"), is_reload=True)
    instance.enter(pool(B, name="other"))
    instance.know_all(instance.ledger, other)
    free_unused(segment, other)
    assert [each.name for each in view(segment).pools] == ["other"] and sorted(instance.servers) == [B]


def test_an_empty_pool_that_the_configuration_leaves_out_goes(segment: Segment) -> None:
    instance = Instance(segment, PoolEntry("web", [], may_be_empty=True), pool(B, name="other"))
    generation = instance.ledger.generation
    instance.enter(pool(B, name="other"), is_reload=True)
    assert instance.ledger.generation > generation
    assert [each.name for each in view(segment).pools] == ["other"]
