"""Servers that discovery and scaling add, let go and keep."""
from __future__ import annotations

import pytest

from prefork_lb.errors import Refused
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin
from prefork_lb.shared.table import AddedBy, PoolEntry, free_unused
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.view import view
from tests.unit.shared.instance import A, B, C, Instance
from tests.unit.shared.test_table import pool


def follow(instance: Instance, address: str, source: AddedBy = AddedBy.DISCOVERY) -> int:
    instance.steering.add_server("web", address, who="list", source=source)
    return slots_by_key(instance.segment)["web", address]


def test_what_has_added_a_server_alone_removes_it(instance: Instance) -> None:
    follow(instance, C)
    assert (instance.servers[C].source, instance.servers[A].source) == ("discovery", "configuration")
    with pytest.raises(Refused, match=f"{C} comes from discovery, which would add it again; drain it instead"):
        instance.remove(C)
    with pytest.raises(Refused, match="comes from discovery"):
        instance.steering.remove_server("web", C, who="x", source=AddedBy.SCALING)
    instance.steering.remove_server("web", C, who="list", source=AddedBy.DISCOVERY)
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
    instance.steering.remove_server("web", C, who="list", source=AddedBy.DISCOVERY)
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
