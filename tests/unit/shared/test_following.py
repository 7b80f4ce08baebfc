"""A pool's servers made those of a list."""
from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from prefork_lb.errors import NotThere
from prefork_lb.shared import following
from prefork_lb.shared.following import Followed, follow_list
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.members import Changes
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import AddedBy, PoolEntry, ServerEntry, register
from prefork_lb.shared.transitions import Check
from prefork_lb.shared.view import view
from tests.unit.shared.breaking import Break, broken_off, length
from tests.unit.shared.conftest import NewMaster

A, B, C, D = (f"10.0.0.{number}:80" for number in range(1, 5))


class Pool:
    """A pool that follows a list; its configuration names no server, or those that are given."""

    def __init__(self, segment: Segment, named: Iterable[str] = (), first_check: Check = Check.NONE) -> None:
        self.segment, self.ledger, self.states = segment, Ledger(segment), States(segment)
        entries = [ServerEntry(address, 1, 0, False) for address in named]
        register(segment, self.ledger, [PoolEntry("web", entries, first_check=first_check, may_be_empty=True)])
        self.steering = Steering(segment, self.ledger, self.states)

    def follow(self, *addresses: str, **rules: int) -> Followed:
        wanted = {address: ServerEntry(address, rules.get("weight", 1), rules.get("limit", 0), False) for address in addresses}
        return follow_list(self.segment, self.ledger, self.states, "web", wanted)

    @property
    def wanted(self) -> list[str]:
        """The servers that are not leaving."""
        return sorted(server.address for server in view(self.segment).servers if not server.leaving)

    @property
    def leaving(self) -> list[str]:
        return sorted(server.address for server in view(self.segment).servers if server.leaving)

    def slot(self, address: str) -> int:
        return next(server.slot for server in view(self.segment).servers if server.address == address)


@pytest.fixture
def pool(segment: Segment) -> Pool:
    return Pool(segment)


def test_servers_of_the_list_join_and_others_are_let_go(pool: Pool) -> None:
    assert pool.follow(A, B) == Followed([A, B])
    assert pool.follow(A, B) == Followed()
    assert pool.follow(B, C) == Followed([C], [A])
    assert (pool.wanted, pool.leaving) == ([B, C], [A])
    assert pool.follow(A) == Followed([A], [B, C])


def test_a_server_that_is_listed_again_has_what_it_had(pool: Pool) -> None:
    pool.follow(A, B)
    pool.steering.set_weight("web", A, 7, "me")
    slot = pool.slot(A)
    pool.follow(B)
    pool.follow(A, B)
    assert pool.slot(A) == slot and pool.states.weight_set[slot] == 7 and pool.states.admin[slot] == Admin.READY


def test_other_rules_are_taken_over(pool: Pool) -> None:
    pool.follow(A, B)
    moved = pool.states.moved[pool.slot(A)]
    assert pool.follow(A, B, weight=3) == Followed(changed=[A, B])
    assert [server.weight for server in view(pool.segment).servers] == [3, 3]
    assert pool.states.moved[pool.slot(A)] > moved, "else no worker looks"


def test_servers_of_the_configuration_and_of_operators_stay_what_they_are(segment: Segment) -> None:
    pool = Pool(segment, [A])
    pool.steering.add_server("web", B, 5, who="me")
    assert pool.follow(A, B, C, weight=2) == Followed([C])
    assert pool.follow(D) == Followed([D], [C])
    assert [(each.address, each.weight, each.source) for each in view(segment).servers] == [
        (A, 1, "configuration"), (B, 5, "operator"), (C, 2, "discovery"), (D, 1, "discovery")]


def test_a_server_that_an_operator_has_removed_and_that_is_listed_joins(segment: Segment) -> None:
    pool = Pool(segment, [A])
    pool.steering.remove_server("web", A, who="me")
    assert pool.follow(A) == Followed([A])


def test_servers_stay_until_others_can_take_their_requests(segment: Segment) -> None:
    pool = Pool(segment, first_check=Check.CHECKING)
    pool.follow(A)
    with pool.ledger.locked():
        pool.states.set_check(pool.slot(A), Check.UP, "")
    assert pool.follow(B, C).is_done is False and pool.leaving == []
    with pool.ledger.locked():
        pool.states.set_check(pool.slot(B), Check.UP, "")
    assert pool.follow(B, C).is_done is False and pool.leaving == [], "the first checks of C have not ended"
    with pool.ledger.locked():
        pool.states.set_check(pool.slot(C), Check.DOWN, "")
    assert pool.follow(B, C) == Followed(left=[A])
    with pool.ledger.locked():
        pool.states.set_check(pool.slot(B), Check.DOWN, "")
    assert pool.follow(C).is_done is False and pool.leaving == [A], "B is down, and so is C"


def test_a_server_under_maintenance_is_not_waited_for(segment: Segment) -> None:
    pool = Pool(segment, first_check=Check.CHECKING)
    pool.follow(A, B, C)
    with pool.ledger.locked():
        pool.states.set_check(pool.slot(A), Check.UP, "")
    pool.steering.set_admin("web", B, Admin.MAINTENANCE, "me")
    assert pool.follow(A, B) == Followed(left=[C])


def test_no_list_any_more_lets_all_go(pool: Pool) -> None:
    pool.follow(A, B)
    assert pool.follow() == Followed(left=[A, B])


def test_a_list_longer_than_the_room_is_told_and_followed_as_far_as_it_goes(
    new_master: NewMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(attach_or_create(new_master().pid, Layout(2, 2, 2)), [D])
    tried: list[str] = []
    add = Changes.add

    def note(changes: Changes, server: ServerEntry, who: str, source: AddedBy) -> int:
        tried.append(server.address)
        return add(changes, server, who, source)

    monkeypatch.setattr(Changes, "add", note)
    pool.steering.remove_server("web", D, who="me")
    followed = pool.follow(A, B, C, D)
    assert (followed.joined, followed.is_done) == ([A, D], False)
    assert followed.problems == ["room for 2 servers only; restart gunicorn to make more"]
    assert tried == [A, B, D], "nor is there room for C, and D still has its slot"


def test_what_no_table_can_hold_is_told(pool: Pool) -> None:
    long = f"unix:/{'x' * 340}"
    assert pool.follow(A, long).problems == [f"{long}: longer than the table of servers has room for"]
    assert pool.wanted == [A]


def test_a_pool_that_is_not_there_is_told(pool: Pool) -> None:
    with pytest.raises(NotThere):
        follow_list(pool.segment, pool.ledger, pool.states, "api", {})


def test_a_long_list_is_worked_off_in_parts(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_AT_ONCE", 1)
    changes = pool.states.changes
    assert pool.follow(A, B, C) == Followed([A, B, C])
    assert pool.follow(D) == Followed([D], [A, B, C])
    assert pool.states.changes - changes == 7


def test_changes_are_told_with_some_names() -> None:
    names = [f"10.0.0.{number}:80" for number in range(7)]
    assert Followed(names, [A]).in_words == f"7 joined: {', '.join(names[:5])} …; 1 left: {A}"
    assert Followed().in_words == ""


@pytest.mark.parametrize("how", Break)
def test_a_change_that_is_broken_off_is_done_by_the_next_look(segment: Segment, how: Break) -> None:
    pool = Pool(segment)

    def prepare() -> Callable[[], object]:
        ledger = Ledger(segment, takes_row=False)
        wanted = {address: ServerEntry(address, 1, 0, False) for address in (B, C)}
        return lambda: follow_list(segment, ledger, pool.states, "web", wanted)

    pool.follow(A, B)
    steps = length(prepare)
    assert steps > 1000
    for step in range(1, steps, steps // 30):
        pool.follow(A, B)
        broken_off(step, how, prepare)
        assert {B} <= set(pool.wanted) <= {A, B, C}, f"broken off at instruction {step}"
        pool.follow(B, C)
        assert (pool.wanted, pool.leaving) == ([B, C], [A])
