"""The ring of events: what is written can be read, half of an event never is."""
from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared import refusals
from prefork_lb.shared.events import Event, EventKind, last, recent, record_event
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.refusals import count_refusal
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.transitions import Check
from prefork_lb.shared.transitions import StateEvent as What
from tests.unit.shared.breaking import Break, broken_off, moments
from tests.unit.shared.processes import Child

POOL, SERVER = "web", "10.0.0.1:80"


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    return Ledger(segment, takes_row=False)


@pytest.fixture
def slot(segment: Segment, ledger: Ledger) -> int:
    return register(segment, ledger, [PoolEntry(POOL, [ServerEntry(SERVER, 1, 0, False)])])[POOL].slots[0]


def texts(segment: Segment, after: int = 0, limit: int = at.EVENTS) -> list[str]:
    return [event.text for event in recent(segment, after, limit)]


def write(segment: Segment, ledger: Ledger, *found: str) -> None:
    with ledger.locked():
        for text in found:
            record_event(segment, EventKind.AUDIT, text)


def test_an_event_is_read_as_it_was_written(segment: Segment, ledger: Ledger) -> None:
    before = time.time()
    with ledger.locked():
        record_event(segment, EventKind.ADMIN, "drain → ready", "web", "[fd00::1]:80", "alice")
    [event] = recent(segment)
    assert before - 1 < event.at < time.time() + 1
    assert event == Event(1, event.at, "admin", "web", "[fd00::1]:80", "drain → ready", "alice")


def test_the_newest_are_kept_oldest_first(segment: Segment, ledger: Ledger) -> None:
    assert recent(segment) == [] and last(segment) == 0
    write(segment, ledger, *(str(number) for number in range(1, at.EVENTS + 11)))
    assert texts(segment) == [str(number) for number in range(11, at.EVENTS + 11)]
    assert texts(segment, limit=2) == ["265", "266"] and texts(segment, after=264) == ["265", "266"]
    assert texts(segment, after=266) == texts(segment, after=1000) == []
    assert [event.seq for event in recent(segment, limit=2)] == [265, 266] and last(segment) == 266


def test_what_is_too_long_is_cut_at_its_end_and_unprintable_characters_are_shown(segment: Segment, ledger: Ledger) -> None:
    longest = "s" * (at.KEY_BYTES - 2 - len(POOL))
    with ledger.locked():
        record_event(segment, EventKind.CONTROLLER_STARTED, "é" * 1000, POOL, longest, "ü" * 200)
        record_event(segment, EventKind.AUDIT, "a\nb\x1b[1m")
    cut, shown = recent(segment)
    assert (cut.pool, cut.server, cut.who) == (POOL, longest, "ü" * 40) and set(cut.text) == {"é", "…"}
    assert shown.text == "a\\u000ab\\u001b[1m"


def test_an_entry_that_is_being_overwritten_is_left_out(segment: Segment, ledger: Ledger) -> None:
    write(segment, ledger, "one", "two", "three")
    entry = at.HEADER_CELLS + 2 * at.EVENT_CELLS
    segment.cells[entry + at.V_NUMBER] = 2 + at.EVENTS
    assert texts(segment) == ["one", "three"]
    segment.cells[entry + at.V_NUMBER] = 2
    assert texts(segment) == ["one", "two", "three"]
    segment.text[(entry + at.V_TEXT) * at.CELL] ^= 1  # its text is not yet whole
    assert texts(segment) == ["one", "three"]


@pytest.mark.parametrize("how", Break)
def test_a_writer_that_is_broken_off_leaves_all_or_nothing(segment: Segment, ledger: Ledger, how: Break) -> None:
    write(segment, ledger, *["old"] * (at.EVENTS + 3))

    def prepare() -> Callable[[], object]:
        mine = Ledger(segment, takes_row=False)
        return lambda: write(segment, mine, "new")

    found = moments(how, prepare, segment.text)
    assert len(found) > 8
    for instruction in found:
        before = last(segment)
        broken_off(instruction, how, prepare)
        added = last(segment) - before
        assert added in (0, 1)
        found = texts(segment)
        assert found[-1:] == ["new"] * added or not added
        # Of the entry that is half written only the event that it had is lost.
        assert len(found) >= at.EVENTS - 1
    write(segment, ledger, "after")
    assert texts(segment, limit=1) == ["after"] and len(texts(segment)) == at.EVENTS


def test_what_happens_to_a_server_is_told_with_its_reason(segment: Segment, ledger: Ledger, slot: int) -> None:
    states = States(segment)
    with ledger.locked():
        states.set_check(slot, Check.CHECKING, "not checked yet")
        states.set_check(slot, Check.UP, "status 200")
        states.set_check(slot, Check.UP, "status 200")
        states.set_check(slot, Check.DOWN, "status 503")
        states.eject(slot, What.FAILED, states.checked[slot] + 10_000, "5 failures in a row")
        states.let_time_pass()
        states.ejected_until[slot] = 1
        states.let_time_pass()
        states.begin_trial(slot, 0)
        states.eject(slot, What.TRIAL_LEFT, 0)
        assert states.ejection_reason(slot) == "5 failures in a row"
        states.let_time_pass()
        states.begin_trial(slot, 0)
        states.pass_trial(slot)
    found = recent(segment)
    assert [(event.kind, event.text) for event in found if event.kind != "server-ejected"] == [
        ("server-up", "status 200"), ("server-down", "status 503"), ("server-trial", "a request is sent to it as its trial"),
        ("server-trial", "a request is sent to it as its trial"), ("server-returned", "it answered the trial")]
    ejected = [event.text.partition(" s: ")[2] for event in found if event.kind == "server-ejected"]
    assert ejected == ["5 failures in a row", "the client of the trial left, or a kept connection had ended"]
    assert {(event.pool, event.server, event.who) for event in found} == {(POOL, SERVER, f"worker {os.getpid()}")}


def test_checks_that_begin_with_the_configuration_are_no_event(segment: Segment, ledger: Ledger, slot: int) -> None:
    with ledger.locked():
        States(segment).set_check(slot, Check.UP, "not checked yet")
        States(segment).forget_check(slot)
    assert recent(segment) == []


def test_workers_that_end_and_die_are_told(segment: Segment, ledger: Ledger) -> None:
    def end() -> None:
        Ledger(segment).note_end()
        os._exit(0)

    def die() -> None:
        mine = Ledger(segment)
        with mine.locked():
            mine.claim(0)
            mine.claim(0)
        os._exit(0)

    pids = []
    for live in (end, die):
        child = Child(live)
        pids.append(child.pid)
        child.wait()
        ledger.reclaim_dead()
    assert [(event.kind, event.text) for event in recent(segment)] == [
        ("worker-ended", f"worker {pids[0]} ended"), ("worker-died", f"worker {pids[1]} died with 2 requests in flight")]


def test_refusals_are_an_event_when_they_begin(
    segment: Segment, ledger: Ledger, slot: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 50_000
    monkeypatch.setattr(refusals, "now_ms", lambda: now)
    for pause in (0, 10, 1000, 1000, 1001, 1):
        now += pause
        with ledger.locked():
            count_refusal(segment, 0, f"after {pause}")
    assert [(event.kind, event.pool, event.text) for event in recent(segment)] == [
        ("limit-reached", POOL, "after 0"), ("limit-reached", POOL, "after 1001")]
    assert segment.cells[segment.layout.pool(0) + at.P_REFUSED] == 6
