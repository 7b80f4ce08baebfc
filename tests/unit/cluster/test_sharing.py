"""Balancers that share, on virtual time and through a store in memory."""
from __future__ import annotations

import random

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.cluster.limits import SharedLimits
from prefork_lb.cluster.others import GONE_S, SILENT_S
from prefork_lb.shared.balancers import balancers, is_together
from prefork_lb.shared.events import recent
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import Admin, now_ms
from prefork_lb.shared.transitions import Check, Ejection, StateEvent
from tests.unit.cluster.conftest import SERVERS, NewBalancer
from tests.unit.cluster.store import FakeStore, OneBalancer, exchange

ROUNDS = 20


def test_long_requests_of_others_count(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b, c = (new_balancer(name) for name in "abc")
    a.claim(12, 0, 0)
    exchange(clock, a, b, c, rounds=ROUNDS)
    for other in (b, c):
        assert other.loads[0] - other.loads[1] >= 3
    # Each leaves out the first server as often as is its part, and then all are level.
    for balancer in (a, b, c):
        for _ in range(8):
            loads = balancer.loads
            balancer.claim(*(int(index == loads.index(min(loads))) for index in range(3)))
    totals = [sum(balancer.ledger.totals[slot] for balancer in (a, b, c)) for slot in a.slots]
    assert max(totals) - min(totals) <= 3


def test_other_servers_stand_for_themselves(clock: ManualClock, new_balancer: NewBalancer) -> None:
    """Balancers of different configurations share what they both have."""
    a, b = new_balancer("a", ("10.0.0.9:80", "10.0.0.2:80", "10.0.0.1:80")), new_balancer("b")
    a.claim(7, 12, 0)
    exchange(clock, a, b, rounds=ROUNDS)
    assert b.loads[1] - b.loads[0] >= 3


def test_a_silent_balancer_ages_out(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    a.claim(12, 0, 0)
    exchange(clock, a, b, rounds=ROUNDS)
    assert [each.name for each in balancers(b.segment)] == ["a", "b"]
    exchange(clock, b, rounds=int(SILENT_S / 0.05) + 2)
    assert b.loads == [0, 0, 0]
    assert [each.name for each in balancers(b.segment)] == ["b"]
    exchange(clock, a, b, rounds=ROUNDS)
    assert b.loads[0] >= 3
    texts = [event.text for event in recent(b.segment, 0, 100) if event.kind.startswith("balancer-")]
    assert texts == ["b shares with others from now on", "a shares with this one", "a is silent, or has ended",
                     "a shares with this one"]


def test_the_report_of_one_that_ended_long_ago_says_nothing(
    clock: ManualClock, store: FakeStore, new_balancer: NewBalancer
) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    a.claim(12, 0, 0)
    exchange(clock, a)
    exchange(clock, b, rounds=ROUNDS)
    assert b.loads == [0, 0, 0]
    exchange(clock, b, rounds=int(GONE_S / 0.05) + 2)
    assert list(store.reports) == ["b"]


@pytest.mark.parametrize("what", ["away", "empty"])
def test_without_the_store_each_goes_on_and_they_come_together_again(
    clock: ManualClock, store: FakeStore, new_balancer: NewBalancer, what: str
) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    a.claim(12, 0, 0)
    exchange(clock, a, b, rounds=ROUNDS)
    together = b.loads
    store.is_away = what == "away"
    store.empty()
    exchange(clock, a, b)
    if what == "away":
        assert b.loads == [0, 0, 0]
        assert [each.in_flight for each in balancers(a.segment)] == [12]
    store.is_away = False
    exchange(clock, a, b, rounds=ROUNDS)
    assert b.loads == together


def test_what_one_has_written_that_is_killed_in_an_exchange_can_be_taken_back(
    clock: ManualClock, store: FakeStore, new_balancer: NewBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the first exchange with a store that was away."""
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    a, b = new_balancer("a"), new_balancer("b")
    a.claim(12, 0, 0)
    exchange(clock, a, b, rounds=ROUNDS)
    store.is_away = True
    exchange(clock, b)
    store.is_away = False
    exchange(clock, a)
    monkeypatch.setattr(SharedLimits, "take", kill)
    with pytest.raises(Killed):
        b.sharing.exchange()
    assert b.loads != [0, 0, 0]
    assert is_together(b.segment)  # so the controller looks when it last was


def admin(balancer: OneBalancer, index: int = 0) -> Admin:
    return Admin(balancer.states.admin[balancer.slots[index]])


def test_the_newest_setting_counts(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    exchange(clock, a, b, rounds=3)
    a.steering.set_admin("web", "10.0.0.1:80", Admin.DRAIN, "somebody")
    a.steering.set_weight("web", "10.0.0.2:80", 7, "somebody")
    a.steering.set_limit("web", "10.0.0.2:80", 9, "somebody")
    exchange(clock, a, b, rounds=3)
    assert admin(b) is Admin.DRAIN
    assert (b.states.weight_set[b.slots[1]], b.states.limit_set(b.slots[1])) == (7, 9)
    b.steering.set_admin("web", "10.0.0.1:80", Admin.READY, "somebody")
    b.steering.set_weight("web", "10.0.0.2:80", None, "somebody")
    exchange(clock, b, a, rounds=3)
    assert admin(a) is admin(b) is Admin.READY
    assert (a.states.weight_set[a.slots[1]], a.states.limit_set(a.slots[1])) == (0, 9)
    assert [event.who for event in recent(b.segment, 0, 100) if event.kind == "admin"] == ["balancer a", "somebody"]


def test_a_server_is_put_to_use_before_another_is_taken_out(clock: ManualClock, new_balancer: NewBalancer) -> None:
    """Both were set since the last exchange. Else a balancer would have no server at all between the two."""
    a, b = new_balancer("a"), new_balancer("b")
    exchange(clock, a, b, rounds=3)
    for address in ("10.0.0.2:80", "10.0.0.3:80"):
        a.steering.set_admin("web", address, Admin.MAINTENANCE, "somebody")
    exchange(clock, a, b, rounds=3)
    a.steering.set_admin("web", "10.0.0.3:80", Admin.READY, "somebody")
    a.steering.set_admin("web", "10.0.0.1:80", Admin.DRAIN, "somebody")
    exchange(clock, a, b, rounds=3)
    told = [event.server for event in recent(b.segment, 0, 100) if event.kind == "admin"]
    assert told == ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.3:80", "10.0.0.1:80"]


def test_of_several_settings_of_a_server_only_the_newest_is_set(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b, c = (new_balancer(name) for name in "abc")
    exchange(clock, a, b, c, rounds=3)
    a.steering.set_admin("web", "10.0.0.1:80", Admin.MAINTENANCE, "somebody")
    exchange(clock, a, b, c, rounds=3)
    b.steering.set_admin("web", "10.0.0.1:80", Admin.READY, "somebody")
    exchange(clock, b)
    exchange(clock, a)
    a.steering.set_admin("web", "10.0.0.1:80", Admin.DRAIN, "somebody")
    exchange(clock, a, c)
    told = [event.text for event in recent(c.segment, 0, 100) if event.kind == "admin"]
    assert admin(c) is Admin.DRAIN and len(told) == 2, told


def test_of_what_was_set_without_the_store_the_newest_counts(
    clock: ManualClock, store: FakeStore, new_balancer: NewBalancer
) -> None:
    """Also when the store comes back empty, and with another clock."""
    a, b = new_balancer("a"), new_balancer("b")
    exchange(clock, a, b, rounds=3)
    store.is_away = True
    store.empty()
    b.steering.set_admin("web", "10.0.0.1:80", Admin.MAINTENANCE, "somebody")
    exchange(clock, a, b, rounds=3)
    a.steering.set_admin("web", "10.0.0.1:80", Admin.DRAIN, "somebody")
    exchange(clock, a, b, rounds=3)
    store.is_away, store.ahead_s = False, 5.0
    exchange(clock, b, a, rounds=3)
    assert admin(a) is admin(b) is Admin.DRAIN
    b.steering.set_admin("web", "10.0.0.1:80", Admin.READY, "somebody")
    exchange(clock, b, a, rounds=3)
    assert admin(a) is Admin.READY


def test_a_newcomer_goes_by_what_is_set(clock: ManualClock, new_balancer: NewBalancer) -> None:
    """Also when it has a setting from before its start, such as that of its state file."""
    a = new_balancer("a")
    exchange(clock, a, rounds=2)
    a.steering.set_admin("web", "10.0.0.1:80", Admin.DRAIN, "somebody")
    exchange(clock, a, rounds=2)
    b = new_balancer("b")
    b.steering.set_admin("web", "10.0.0.1:80", Admin.MAINTENANCE, "the state file")
    b.steering.set_weight("web", "10.0.0.2:80", 5, "the state file")
    exchange(clock, b, a, rounds=3)
    assert admin(a) is admin(b) is Admin.DRAIN
    assert a.states.weight_set[a.slots[1]] == 5  # nobody had set another one


def test_what_cannot_be_set_now_is_set_as_soon_as_it_can_be(
    clock: ManualClock, store: FakeStore, new_balancer: NewBalancer, caplog: pytest.LogCaptureFixture
) -> None:
    """A source lets go of the server while the setting comes, and wants it again a moment later."""
    a, b = new_balancer("a"), new_balancer("b")
    exchange(clock, a, b, rounds=3)
    a.steering.set_admin("web", "10.0.0.1:80", Admin.DRAIN, "somebody")
    exchange(clock, a)
    for _ in range(3):
        store.meanwhile = lambda: b.steering.let_go("web", "10.0.0.1:80")
        exchange(clock, b)
        b.steering.keep("web", "10.0.0.1:80")
    assert admin(b) is Admin.READY
    assert caplog.text.count("cannot be set") == 1
    exchange(clock, b, a, rounds=3)
    assert admin(a) is admin(b) is Admin.DRAIN


def eject(balancer: OneBalancer, index: int, ms: int = 10_000) -> None:
    with balancer.ledger.locked():
        balancer.states.eject(balancer.slots[index], StateEvent.FAILED, now_ms() + ms, "5 failures in a row")


def ejections(balancer: OneBalancer) -> list[int]:
    return [balancer.states.ejection[slot] for slot in balancer.slots]


def test_an_ejection_holds_on_all_and_is_told_once(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b, c = (new_balancer(name) for name in "abc")
    exchange(clock, a, b, c, rounds=3)
    eject(a, 1)
    exchange(clock, a, b, c, rounds=10)
    for balancer in (a, b, c):
        assert ejections(balancer) == [Ejection.NONE, Ejection.EJECTED, Ejection.NONE]
        assert balancer.states.times_ejected[balancer.slots[1]] == 1


def test_the_last_usable_server_stays(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    exchange(clock, a, b, rounds=3)
    for address in ("10.0.0.1:80", "10.0.0.3:80"):
        b.steering.set_admin("web", address, Admin.MAINTENANCE, "somebody")
    eject(a, 1)
    exchange(clock, a, b, rounds=1)
    exchange(clock, b, rounds=1)
    assert ejections(b)[1] == Ejection.NONE


def check(balancer: OneBalancer, state: Check, note: str) -> None:
    for slot in balancer.slots:
        with balancer.ledger.locked():
            balancer.states.set_check(slot, state, note)


def is_checked_elsewhere(balancer: OneBalancer) -> bool:
    return any(balancer.states.checked_elsewhere[slot] for slot in balancer.slots)


def test_one_checks_for_all_and_another_takes_over(clock: ManualClock, new_balancer: NewBalancer) -> None:
    a, b, c = (new_balancer(name) for name in "abc")
    for balancer in (b, c, a):
        check(balancer, Check.UP, "200")
    exchange(clock, a, b, c, rounds=10)
    assert [is_checked_elsewhere(balancer) for balancer in (a, b, c)] == [False, True, True]
    assert [each.checks for each in balancers(c.segment)] == [True, False, False]
    check(a, Check.DOWN, "refused")
    exchange(clock, a, b, c, rounds=10)
    assert [Check(balancer.states.check[balancer.slots[0]]) for balancer in (b, c)] == [Check.DOWN] * 2
    assert b.states.note(b.slots[0]) == "refused"
    exchange(clock, b, c, rounds=int(SILENT_S / 0.05) + 10)  # a is gone
    assert [is_checked_elsewhere(balancer) for balancer in (b, c)] == [False, True]
    check(b, Check.UP, "200 again")
    exchange(clock, b, c, rounds=10)
    assert c.states.note(c.slots[0]) == "200 again"


def test_what_comes_of_an_exchange_is_not_for_a_server_that_has_got_a_slot_meanwhile(
        clock: ManualClock, store: FakeStore, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a", limit=10), new_balancer("b", limit=10)
    for balancer in (a, b):
        check(balancer, Check.UP, "200")
    exchange(clock, a, b, rounds=10)
    a.claim(9, 0, 0)
    exchange(clock, a, b)  # now b knows of this need, and asks for less
    eject(a, 0)
    exchange(clock, a)
    slot, part = b.slots[0], b.states.slots(b.slots[0])
    store.meanwhile = lambda: b.replace(0, "10.0.0.8:80")
    exchange(clock, b)
    assert (b.states.ejection[slot], b.states.slots(slot)) == (Ejection.NONE, part)
    check(a, Check.DOWN, "refused")
    exchange(clock, a, rounds=6)
    exchange(clock, b)  # now it knows that there are results, and asks for them
    b.replace(0, SERVERS[0])
    store.meanwhile = lambda: b.replace(0, "10.0.0.9:80")
    exchange(clock, b)
    assert [Check(b.states.check[each]) for each in b.slots] == [Check.UP, Check.DOWN, Check.DOWN]


def test_limits_are_held_over_all(clock: ManualClock, new_balancer: NewBalancer) -> None:
    """Load moves from one balancer to another at random, and each takes all that its part allows."""
    limit, rng = 10, random.Random(4)
    found = [new_balancer(name, limit=limit) for name in "abc"]
    exchange(clock, *found, rounds=3)
    most = 0
    for step in range(150):
        busy = found[step // 25 % 3]
        for balancer in found:
            slot = balancer.slots[0]
            room = (balancer.states.slots(slot) or 0) - balancer.ledger.totals[slot]
            count = min(max(room, 0), 3) if balancer is busy else -min(balancer.ledger.totals[slot], rng.randrange(3))
            balancer.claim(count, 0, 0)
        total = sum(balancer.ledger.totals[balancer.slots[0]] for balancer in found)
        assert total <= limit
        most = max(most, busy.ledger.totals[busy.slots[0]])
        exchange(clock, *rng.sample(found, 3))
    assert most >= limit - 1  # who is busy has nearly all of it


def test_alone_each_uses_its_even_part(clock: ManualClock, store: FakeStore, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a", limit=10), new_balancer("b", limit=10)
    exchange(clock, a, b, rounds=5)
    a.claim(5, 0, 0)
    exchange(clock, a, b, rounds=5)
    assert (a.states.slots(a.slots[0]) or 0) > 5
    store.is_away = True
    exchange(clock, a, b)
    assert a.states.slots(a.slots[0]) == b.states.slots(b.slots[0]) == 5


def test_one_that_ends_in_good_order_is_not_waited_for(clock: ManualClock, store: FakeStore, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    a.claim(12, 0, 0)
    exchange(clock, a, b, rounds=ROUNDS)
    a.sharing.leave()
    exchange(clock, b)
    assert b.loads == [0, 0, 0] and balancers(a.segment) == []


def learn(balancer: OneBalancer, value: bytes, address: str) -> None:
    """A server of this balancer has given this value to a client."""
    keys = SessionKeys(balancer.segment.secret, "web", b"a secret of all balancers")
    SessionTable(balancer.segment, balancer.ledger).put(keys.session(value), keys.server(address), now_ms())


def place(balancer: OneBalancer, value: bytes) -> str | None:
    keys = SessionKeys(balancer.segment.secret, "web", b"a secret of all balancers")
    found = SessionTable(balancer.segment, balancer.ledger).find(keys.session(value))
    addresses = {keys.server(address): address for address in SERVERS}
    return addresses[found.server] if found is not None else None


def test_learned_sessions_are_passed_on(clock: ManualClock, store: FakeStore, new_balancer: NewBalancer) -> None:
    a, b = new_balancer("a"), new_balancer("b")
    assert a.segment.secret != b.segment.secret
    exchange(clock, a, b, rounds=3)
    learn(a, b"visitor", "10.0.0.2:80")
    exchange(clock, a, b, rounds=2)
    assert place(b, b"visitor") == "10.0.0.2:80"
    exchange(clock, a, b, rounds=5)
    assert len(store.sessions) == 1  # once
    learn(b, b"visitor", "10.0.0.3:80")
    exchange(clock, b, a, rounds=3)
    assert place(a, b"visitor") == "10.0.0.3:80"
    assert place(new_and_told(clock, new_balancer), b"visitor") == "10.0.0.3:80"


def new_and_told(clock: ManualClock, new_balancer: NewBalancer) -> OneBalancer:
    """A newcomer learns what was passed on before it was there."""
    newcomer = new_balancer("c")
    exchange(clock, newcomer)
    return newcomer
