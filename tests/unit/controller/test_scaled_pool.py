"""A pool as scaling sees it, in real shared memory."""
from __future__ import annotations

import pytest

from prefork_lb.controller.scaled_pool import ScaledPool
from prefork_lb.errors import Refused
from prefork_lb.scaling.fleet_pool import PooledServer
from prefork_lb.shared.events import EventKind, recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.transitions import Check
from prefork_lb.shared.view import view

OWN, OURS, OTHER = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    ledger = Ledger(segment)
    register(segment, ledger, [PoolEntry("app", [ServerEntry(OWN, 1, 0, False)], may_be_empty=True)])
    return ledger


@pytest.fixture
def pool(segment: Segment, ledger: Ledger) -> ScaledPool:
    return ScaledPool(segment, ledger, States(segment), "app", max_connections=7)


def test_only_servers_that_scaling_has_added_are_seen(segment: Segment, ledger: Ledger, pool: ScaledPool) -> None:
    Steering(segment, ledger, States(segment)).add_server("app", OTHER, who="me")
    assert pool.seen() == {}
    pool.add(OURS)
    assert pool.seen() == {OURS: PooledServer(0, False, True)}
    assert next(server.max_connections for server in view(segment).servers if server.address == OURS) == 7


def test_a_server_that_an_operator_has_drained_is_not_usable_and_does_not_leave(
        segment: Segment, ledger: Ledger, pool: ScaledPool) -> None:
    pool.add(OURS)
    Steering(segment, ledger, States(segment)).set_admin("app", OURS, Admin.DRAIN, "me")
    assert pool.seen() == {OURS: PooledServer(0, False, False)}


def test_one_that_is_let_go_gets_no_requests_and_may_be_had_back(pool: ScaledPool) -> None:
    pool.add(OURS)
    pool.let_go(OURS)
    assert pool.seen() == {OURS: PooledServer(0, True, False)}
    pool.keep(OURS)
    assert pool.seen() == {OURS: PooledServer(0, False, True)}


def test_a_server_is_down_by_its_check_unless_an_operator_sees_to_it(segment: Segment, ledger: Ledger, pool: ScaledPool) -> None:
    pool.add(OURS)
    slot, states = slots_by_key(segment)["app", OURS], States(segment)
    with ledger.locked():
        states.set_check(slot, Check.DOWN, "connection refused")
    assert pool.seen()[OURS].is_down
    Steering(segment, ledger, states).set_admin("app", OURS, Admin.DRAIN, "me")
    assert not pool.seen()[OURS].is_down


def test_its_requests_are_counted(segment: Segment, ledger: Ledger, pool: ScaledPool) -> None:
    pool.add(OURS)
    slot = slots_by_key(segment)["app", OURS]
    with ledger.locked():
        ledger.claim(slot)
        ledger.claim(slot)
    assert pool.seen()[OURS].requests == 2


def test_a_server_is_removed_and_may_have_gone_already(pool: ScaledPool) -> None:
    pool.add(OURS)
    pool.remove(OURS)
    pool.remove(OURS)
    pool.let_go(OURS)
    assert pool.seen() == {}


def test_an_operators_server_is_not_scalings(segment: Segment, ledger: Ledger, pool: ScaledPool) -> None:
    with pytest.raises(Refused):
        pool.add(OWN)


def test_events_name_scaling(segment: Segment, pool: ScaledPool) -> None:
    pool.tell(EventKind.GIVEN_UP, "", "no")
    event = recent(segment, 0)[-1]
    assert (event.kind, event.pool, event.server, event.text, event.who) == (EventKind.GIVEN_UP, "app", "", "no", "scaling")
