"""Servers that were added and removed at run time, as workers come and configurations change."""
from __future__ import annotations

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin
from prefork_lb.shared.table import Standing, free_unused
from prefork_lb.shared.table_lookup import owner_of, slots_by_key
from prefork_lb.shared.view import view
from tests.unit.shared.instance import A, B, C, Instance, moved
from tests.unit.shared.test_ledger import claim
from tests.unit.shared.test_table import end_worker, pool


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
