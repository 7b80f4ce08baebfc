"""Which servers may be picked, and with what weight."""
from __future__ import annotations

import pytest

from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.transitions import Check, Ejection
from prefork_lb.upstream.availability import AvailabilityRules, UsableServers, choose_usable, ramp
from prefork_lb.upstream.server import UNLIMITED, Server
from tests.unit.upstream.parts import new_server

NOW = 1_000_000
UP, DOWN, CHECKING = Check.UP, Check.DOWN, Check.CHECKING


@pytest.fixture
def states(ledger: Ledger) -> States:
    return States(ledger.segment)


def chosen(servers: list[Server], states: States, slow_start_ms: int = 0, panic: int = 50, now: int = NOW) -> UsableServers:
    return choose_usable(servers, states, AvailabilityRules(slow_start_ms, panic), now)


def slots(servers: tuple[Server, ...]) -> list[int]:
    return [server.slot for server in servers]


@pytest.mark.parametrize(("checks", "percent", "used", "panic"), [
    ([UP, UP, UP, UP], 50, [0, 1, 2, 3], False),
    ([UP, UP, DOWN, DOWN], 50, [0, 1], False),  # exactly half is enough
    ([UP, DOWN, DOWN, DOWN], 50, [0, 1, 2, 3], True),
    ([UP, DOWN, DOWN, DOWN], 25, [0], False),
    ([DOWN] * 4, 50, [0, 1, 2, 3], True),
    ([DOWN] * 4, 0, [], False),
    ([CHECKING, UP, UP, UP], 50, [1, 2, 3], False),
    ([CHECKING] * 4, 0, [], False),
])
def test_panic_when_checks_leave_too_few(states: States, checks: list[Check], percent: int, used: list[int], panic: bool) -> None:
    servers = [new_server(slot) for slot in range(4)]
    for slot, check in enumerate(checks):
        states.check[slot] = check
    choice = chosen(servers, states, panic=percent)
    assert (slots(choice.primaries), choice.is_panic) == (used, panic)


def test_backups_that_are_up_are_what_an_outage_is_for(states: States) -> None:
    servers = [new_server(0), new_server(1), new_server(2, backup=True)]
    states.check[0] = states.check[1] = DOWN
    states.check[2] = UP
    choice = chosen(servers, states)
    assert (slots(choice.primaries), slots(choice.backups), choice.is_panic) == ([], [2], False)
    states.check[2] = DOWN
    choice = chosen(servers, states)
    assert (slots(choice.primaries), slots(choice.backups), choice.is_panic) == ([0, 1], [2], True)


@pytest.mark.parametrize("state", [Admin.DRAIN, Admin.MAINTENANCE])
def test_what_an_operator_took_out_is_out_also_in_panic(states: States, state: Admin) -> None:
    servers = [new_server(slot) for slot in range(3)]
    states.admin[0] = state
    states.check[1] = states.check[2] = DOWN
    choice = chosen(servers, states)
    assert (slots(choice.primaries), choice.is_panic) == ([1, 2], True)
    states.admin[1] = states.admin[2] = state
    assert chosen(servers, states)[:3] == ((), (), ())


def test_ejected_servers_are_out_unless_nobody_else_is_left(states: States) -> None:
    servers = [new_server(slot) for slot in range(2)]
    states.ejection[0] = Ejection.EJECTED
    assert slots(chosen(servers, states).primaries) == [1]
    states.ejection[1] = Ejection.EJECTED
    assert slots(chosen(servers, states).primaries) == [0, 1]


def test_a_trial_is_due_only_for_a_server_that_is_well_otherwise(states: States) -> None:
    servers = [new_server(slot) for slot in range(3)]
    for slot in (0, 1):
        states.ejection[slot] = Ejection.TRIAL_DUE
    states.admin[1] = Admin.DRAIN
    choice = chosen(servers, states)
    assert (slots(choice.trials), slots(choice.primaries)) == ([0], [2])
    states.ejection[0] = Ejection.ON_TRIAL
    assert chosen(servers, states).trials == ()


def test_a_weight_by_command_wins(states: States) -> None:
    servers = [new_server(0, weight=3), new_server(1, weight=3)]
    states.weight_set[1] = 7
    chosen(servers, states)
    assert [server.weight for server in servers] == [3, 7]
    states.weight_set[1] = 0
    chosen(servers, states)
    assert [server.weight for server in servers] == [3, 3]


def test_a_limit_by_command_wins(states: States) -> None:
    servers = [new_server(0, limit=3), new_server(1, limit=3), new_server(2)]
    for slot, limit in enumerate((7, 0, 9)):
        states.set_limit(slot, limit)
    chosen(servers, states)
    assert [server.max_connections for server in servers] == [7, UNLIMITED, 9]
    for slot in range(3):
        states.set_limit(slot, None)
    chosen(servers, states)
    assert [server.max_connections for server in servers] == [3, 3, UNLIMITED]


@pytest.mark.parametrize(("age_ms", "share"), [
    (-5, 0.1), (0, 0.1), (1, 0.1), (1000, 0.1), (1001, 0.1001), (5000, 0.5), (9999, 0.9999), (10_000, 1.0), (99_999, 1.0),
])
def test_the_ramp_is_a_line_from_a_tenth(age_ms: int, share: float) -> None:
    assert ramp(age_ms, 10_000) == pytest.approx(share)


@pytest.mark.parametrize(("age_ms", "weight", "limit", "ramping"), [
    (0, 20, 2, True), (5000, 100, 10, True), (10_000, 200, 20, False), (None, 200, 20, False),
])
def test_weight_and_limit_grow_in_slow_start(states: States, age_ms: int | None, weight: int, limit: int, ramping: bool) -> None:
    server, other = new_server(0, weight=2, limit=20), new_server(1)
    states.risen[0] = 0 if age_ms is None else NOW - age_ms
    choice = chosen([server, other], states, slow_start_ms=10_000)
    assert (server.weight, server.max_connections, choice.is_ramping) == (weight, limit, ramping)
    assert (other.weight, other.max_connections) == (100, UNLIMITED)  # the same scale
    states.risen[0] = NOW
    chosen([server, other], states, slow_start_ms=0)
    assert (server.weight, server.max_connections) == (2, 20)


class WatchedServer(Server):
    """Notes every limit that it is given, as another thread could see it."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "max_connections":
            LIMITS_SEEN.append(value)


LIMITS_SEEN: list[object] = []


def test_no_thread_sees_the_full_limit_while_the_ramped_one_is_set(states: States) -> None:
    """Another thread of the worker claims meanwhile, and would send a server in slow start all that it can bear."""
    plain = new_server(0, limit=20)
    server = WatchedServer(0, plain.address, plain.name, 1, 20, False, plain.idle)
    states.risen[0] = NOW
    LIMITS_SEEN.clear()
    chosen([server], states, slow_start_ms=10_000)
    assert LIMITS_SEEN == [2]


def test_a_limit_never_ramps_to_nothing(states: States) -> None:
    server = new_server(0, limit=3)
    states.risen[0] = NOW
    chosen([server], states, slow_start_ms=10_000)
    assert server.max_connections == 1


@pytest.mark.parametrize(("limit", "part", "most"), [(10, 4, 4), (10, 40, 10), (10, 0, 0), (10, None, 10)])
def test_no_more_of_a_limit_is_used_than_this_balancers_part(states: States, limit: int, part: int | None, most: int) -> None:
    server = new_server(0, limit=limit)
    states.set_slots(0, part, 3)
    chosen([server], states)
    assert (server.max_connections, server.own_limit) == (most, most)
