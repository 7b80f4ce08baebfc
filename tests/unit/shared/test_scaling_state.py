"""The scaling of pools in shared memory: what the controller says of it, and what operators ask for."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadValue, NotThere, Refused
from prefork_lb.shared.events import recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.scaling_state import (
    Mode,
    Roll,
    Scaling,
    ask_for_roll,
    asked_roll,
    asked_servers,
    end_roll,
    forget_scaling,
    scaling_of,
    write_scaling,
)
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import view

SCALING = Scaling(Mode.AUTO, 8, 4, 2, 2, 1, "average 14.2 in flight, target 4: wants 4, has 2")


@pytest.fixture
def number(segment: Segment, ledger: Ledger) -> int:
    """That of the pool app, behind another one."""
    pools = [PoolEntry(name, [ServerEntry("10.0.0.1:80", 1, 0, False)]) for name in ("web", "app")]
    return register(segment, ledger, pools)["app"].number


@pytest.fixture
def steering(segment: Segment, ledger: Ledger, number: int) -> Steering:
    with ledger.locked():
        write_scaling(segment, number, SCALING)
    return Steering(segment, ledger, States(segment))


def test_a_pool_does_not_scale_before_a_controller_says_so(segment: Segment, number: int) -> None:
    assert scaling_of(segment, number) is None
    assert [pool.scaling for pool in view(segment).pools] == [None, None]


def test_what_the_controller_says_is_seen(segment: Segment, steering: Steering, number: int) -> None:
    assert scaling_of(segment, number) == SCALING
    assert {pool.name: pool.scaling for pool in view(segment).pools} == {"web": None, "app": SCALING}


def test_a_long_reason_is_cut(segment: Segment, ledger: Ledger, number: int) -> None:
    with ledger.locked():
        write_scaling(segment, number, Scaling(Mode.AUTO, 8, 4, 2, 2, 1, "ä" * 500))
    found = scaling_of(segment, number)
    assert found is not None and set(found.why) == {"ä"} and len(found.why) < 100


def test_an_operator_sets_a_number_and_takes_it_back(segment: Segment, steering: Steering, number: int) -> None:
    for servers in (0, 8, 8, None):
        steering.scale("app", servers, "ann")
        assert asked_servers(segment, number) == servers
    assert [(event.kind, event.pool, event.text, event.who) for event in recent(segment)][-3:] == [
        ("scaled", "app", "0 servers, before: auto", "ann"), ("scaled", "app", "8 servers, before: 0 servers", "ann"),
        ("scaled", "app", "auto, before: 8 servers", "ann")]


@pytest.mark.parametrize("servers", [-1, 9])
def test_no_more_than_the_configuration_allows(segment: Segment, steering: Steering, number: int, servers: int) -> None:
    with pytest.raises(BadValue, match=f"{servers} is no number of servers; expected 0 to 8"):
        steering.scale("app", servers, "ann")
    assert asked_servers(segment, number) is None


def test_only_a_pool_that_scales_can_be_scaled(steering: Steering) -> None:
    with pytest.raises(Refused, match="the pool web does not scale"):
        steering.scale("web", 2, "ann")
    with pytest.raises(NotThere, match="there is no pool 'nothing'"):
        steering.scale("nothing", 2, "ann")


def test_a_roll_is_asked_for_until_it_ends(segment: Segment, ledger: Ledger, steering: Steering, number: int) -> None:
    assert asked_roll(segment, number) is None
    with ledger.locked():
        ask_for_roll(segment, number, Roll(1234, 2))
    assert asked_roll(segment, number) == Roll(1234, 2)
    with ledger.locked():
        end_roll(segment, number)
    assert asked_roll(segment, number) is None


def test_another_pool_in_the_same_place_begins_anew(segment: Segment, ledger: Ledger, steering: Steering, number: int) -> None:
    steering.scale("app", 3, "ann")
    with ledger.locked():
        forget_scaling(segment, number)
    assert (scaling_of(segment, number), asked_servers(segment, number)) == (None, None)
