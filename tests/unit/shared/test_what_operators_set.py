"""States of servers in shared memory, and the configuration for the controller."""
from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from prefork_lb.shared import states
from prefork_lb.shared.layout import NOTE_BYTES
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import publish, published
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.transitions import Check, Ejection, StateEvent
from tests.unit.shared.breaking import Break, broken_off, length
from tests.unit.shared.processes import running

# -- states ----------------------------------------------------------------------------------------------------------


def test_what_decides_is_counted_as_a_change_and_only_that(segment: Segment, slots: list[int]) -> None:
    found = States(segment)
    slot = slots[0]

    def changed(what: object) -> bool:
        before = found.changes
        assert callable(what)
        what()
        return found.changes != before

    assert changed(lambda: found.set_admin(slot, Admin.DRAIN)) and not changed(lambda: found.set_admin(slot, Admin.DRAIN))
    assert changed(lambda: found.set_weight(slot, 5)) and not changed(lambda: found.set_weight(slot, 5))
    assert changed(lambda: found.set_check(slot, Check.DOWN, "no"))
    assert not changed(lambda: found.set_check(slot, Check.DOWN, "still no"))
    assert found.note(slot) == "still no" and found.checked[slot] > 0
    assert changed(lambda: found.forget_check(slot)) and not changed(lambda: found.forget_check(slot))
    assert found.note(slot) == ""


@pytest.mark.parametrize(("admin", "check", "ejected", "usable"), [
    (Admin.READY, Check.NONE, 0, True), (Admin.READY, Check.UP, 0, True), (Admin.DRAIN, Check.UP, 0, False),
    (Admin.MAINTENANCE, Check.UP, 0, False), (Admin.READY, Check.DOWN, 0, False), (Admin.READY, Check.CHECKING, 0, False),
    (Admin.READY, Check.UP, Ejection.EJECTED, False), (Admin.READY, Check.UP, Ejection.TRIAL_DUE, False),
    (Admin.READY, Check.UP, Ejection.ON_TRIAL, False),
])
def test_usable(segment: Segment, slots: list[int], admin: Admin, check: Check, ejected: int, usable: bool) -> None:
    found = States(segment)
    found.admin[slots[0]], found.check[slots[0]], found.ejection[slots[0]] = admin, check, ejected
    assert found.is_usable(slots[0]) == usable


def test_slow_start_begins_when_a_server_comes_back(segment: Segment, slots: list[int]) -> None:
    found = States(segment)
    slot = slots[0]
    found.set_check(slot, Check.UP, "")  # the first checks say so: it has been up all the time
    assert found.risen[slot] == 0
    found.set_check(slot, Check.DOWN, "")
    assert found.risen[slot] == 0
    found.set_check(slot, Check.UP, "")
    assert found.risen[slot] > 0
    found.risen[slot] = 0
    found.set_admin(slot, Admin.DRAIN)
    assert found.risen[slot] == 0
    found.set_admin(slot, Admin.READY)
    assert found.risen[slot] > 0


def test_a_trial_is_due_when_the_time_is_over(segment: Segment, slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    found, slot = States(segment), slots[0]
    now = 1000
    monkeypatch.setattr(states, "now_ms", lambda: now)
    assert not found.is_time() and not found.let_time_pass()
    found.eject(slot, StateEvent.FAILED, 2000)
    assert not found.is_time()
    now = 2000
    before = found.changes
    assert found.is_time() and found.let_time_pass()
    assert found.ejection[slot] == Ejection.TRIAL_DUE and found.changes > before and not found.is_time()


@pytest.mark.parametrize(("text", "kept"), [
    ("", 0), ("x" * (NOTE_BYTES - 1), NOTE_BYTES - 1), ("x" * NOTE_BYTES, NOTE_BYTES - 1),
    ("\N{SNOWMAN}" * NOTE_BYTES, (NOTE_BYTES - 1) // 3), ("x" + "\N{SNOWMAN}" * NOTE_BYTES, 1 + (NOTE_BYTES - 2) // 3),
])
def test_notes_are_cut_between_characters(segment: Segment, slots: list[int], text: str, kept: int) -> None:
    found = States(segment)
    found.set_check(slots[0], Check.UP, text)
    found.set_check(slots[1], Check.UP, "the neighbour")
    assert found.note(slots[0]) == text[:kept]
    assert found.note(slots[1]) == "the neighbour"


# -- the configuration for the controller ----------------------------------------------------------------------------


def test_the_newest_configuration_is_what_the_controller_finds(segment: Segment, ledger: Ledger) -> None:
    assert published(segment) == (0, b"")
    publish(segment, ledger, b"one")
    mark, data = published(segment)
    assert data == b"one" and mark
    publish(segment, ledger, b"two")
    assert published(segment)[1] == b"two" and published(segment)[0] != mark


def test_the_same_configuration_is_not_laid_down_again(segment: Segment, ledger: Ledger) -> None:
    publish(segment, ledger, b"one")
    mark = published(segment)[0]
    publish(segment, ledger, b"one")
    assert published(segment) == (mark, b"one")


def test_a_configuration_that_finds_no_room_is_refused_and_the_one_before_stays(segment: Segment, ledger: Ledger) -> None:
    publish(segment, ledger, b"one")
    with pytest.raises(SegmentError, match="room for a configuration of 16384 bytes only, .* restart gunicorn to make more"):
        publish(segment, ledger, os.urandom(17000))
    assert published(segment)[1] == b"one"


@pytest.mark.parametrize("how", Break)
def test_a_writer_broken_off_at_any_moment_leaves_the_configuration_of_before(segment: Segment, how: Break) -> None:
    survivor = Ledger(segment)
    publish(segment, survivor, b"before")

    def prepare() -> Callable[[], object]:
        mine = Ledger(segment)
        return lambda: publish(segment, mine, b"after")

    last = length(prepare)
    for instruction in range(1, last + 1, 5):
        publish(segment, survivor, b"before")
        broken_off(instruction, how, prepare)
        assert published(segment)[1] in (b"before", b"after")
    survivor.reclaim_dead()


def test_a_reader_overtaken_by_writers_gets_one_configuration_whole(segment: Segment, ledger: Ledger) -> None:
    texts = [bytes([letter]) * 4000 for letter in range(256)]

    def write() -> None:
        mine = Ledger(segment)
        while True:
            for text in texts:
                publish(segment, mine, text)

    publish(segment, ledger, texts[0])
    with running(write):
        assert all(published(segment)[1] in texts for _ in range(500))


def test_requests_of_sessions_on_a_drained_server_are_counted_for_a_minute(segment: Segment,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000]
    monkeypatch.setattr(states, "now_ms", lambda: now[0])
    ledger, server = Ledger(segment), States(segment)
    with ledger.locked():
        server.set_admin(1, Admin.DRAIN)
        assert server.drained[1] == now[0] and server.session_requests_lately(1) == 0
        for _ in range(6):
            server.count_session_request(1)
        assert server.session_requests_lately(1) == 6
        now[0] += 60_000
        for _ in range(2):
            server.count_session_request(1)
        assert server.session_requests_lately(1) == 8  # 2, and all of the window that has just ended
        now[0] += 30_000
        assert server.session_requests_lately(1) == 5
        now[0] += 29_999
        assert server.session_requests_lately(1) == 3
        now[0] += 1
        assert server.session_requests_lately(1) == 0
        server.count_session_request(1)
        server.set_admin(1, Admin.READY)
        assert server.session_requests_lately(1) == 0
