"""What operators change of servers, and what is told of it."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadValue, NotThere, Outdated, Refused
from prefork_lb.shared.events import recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import FROM_CONFIGURATION, Change, Steering
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import ServerView, view

FIRST, SECOND = "10.0.0.1:80", "10.0.0.2:80"


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    ledger = Ledger(segment)
    register(segment, ledger, [PoolEntry("web", [ServerEntry(FIRST, 2, 7, False), ServerEntry(SECOND, 1, 0, False)])])
    return ledger


@pytest.fixture
def steering(segment: Segment, ledger: Ledger) -> Steering:
    return Steering(segment, ledger, States(segment))


def server(segment: Segment, address: str = FIRST) -> ServerView:
    return next(server for server in view(segment).servers if server.address == address)


def told(segment: Segment) -> list[tuple[str, str, str]]:
    """Kind, text and author of the events of the first server."""
    return [(event.kind, event.text, event.who) for event in recent(segment) if event.server == FIRST]


def test_each_thing_that_is_another_is_told(segment: Segment, steering: Steering) -> None:
    change = Change(Admin.DRAIN, 5, 0)
    configured = "that of the configuration"
    assert steering.change("web", FIRST, change, "ann") == [
        "admin drain, before: ready", f"weight 5, before: {configured}", f"limit none, before: {configured}"]
    assert told(segment) == [
        ("admin", "drain, before: ready", "ann"), ("weight", f"5, before: {configured}", "ann"),
        ("limit", f"none, before: {configured}", "ann")]
    assert steering.change("web", FIRST, change, "bob") == [] and len(told(segment)) == 3
    found = server(segment)
    assert (found.state, found.weight, found.max_connections) == ("drain", 5, 0)
    assert (found.weight_configured, found.max_connections_configured) == (2, 7)
    assert steering.change("web", FIRST, Change(weight=FROM_CONFIGURATION, max_connections=3), "bob") == [
        "weight that of the configuration, before: 5", "limit 3, before: none"]
    steering.set_limit("web", FIRST, None, "bob")
    found = server(segment)
    assert (found.state, found.weight, found.max_connections) == ("drain", 2, 7)
    assert server(segment, SECOND).state == "ready"


@pytest.mark.parametrize("change", [Change(weight=0), Change(weight=1001), Change(max_connections=-2),
                                    Change(max_connections=1_000_001), Change(Admin.DRAIN, 1, 1_000_001)])
def test_a_value_that_no_server_may_have_changes_nothing(segment: Segment, steering: Steering, change: Change) -> None:
    before = server(segment)
    with pytest.raises(BadValue):
        steering.change("web", FIRST, change, "ann")
    assert server(segment) == before and told(segment) == []


def test_a_change_of_a_server_that_was_changed_meanwhile_is_refused(segment: Segment, steering: Steering) -> None:
    seen = server(segment).version
    steering.set_weight("web", FIRST, 4, "bob")
    with pytest.raises(Outdated):
        steering.change("web", FIRST, Change(Admin.DRAIN), "ann", seen.__eq__)
    assert server(segment).state == "ready"
    with pytest.raises(Outdated):
        steering.remove_server("web", FIRST, who="ann", is_expected=seen.__eq__)
    steering.change("web", FIRST, Change(Admin.DRAIN), "ann", server(segment).version.__eq__)
    assert server(segment).state == "drain"
    # Undone, it is as it was: nothing is lost when a change believes that nothing has happened.
    steering.change("web", FIRST, Change(Admin.READY, FROM_CONFIGURATION), "ann")
    assert server(segment).version == seen


def test_a_busy_server_is_removed_only_by_force(segment: Segment, ledger: Ledger, steering: Steering) -> None:
    with ledger.locked():
        ledger.claim(0)
    with pytest.raises(Refused, match="1 in flight"):
        steering.remove_server("web", FIRST, who="ann", only_idle=True)
    steering.remove_server("web", FIRST, who="ann")
    with pytest.raises(NotThere):
        steering.set_admin("web", FIRST, Admin.DRAIN, "ann")
