"""The state of each server that decides whether it may be picked: administrative state, checks, ejection, slow start.

It is in shared memory. Commands, the controller and the workers write it under the ledger's lock and read it without the lock.
Checks and ejections change by the table in `shared.transitions`. Each change is counted: a worker compares the count at each
request, and reads the states again when the count has changed. Instants are milliseconds of the monotonic clock, which all
processes share.
"""
from __future__ import annotations

import enum
import math
import time
from collections.abc import Collection

from prefork_lb.shared import layout as at
from prefork_lb.shared.events import EventKind, record_server_event
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.text import read_note, write_note
from prefork_lb.shared.transitions import Check, Ejection, StateEvent, after

# The other processes believe for so long that a trial's worker runs. It renews this four times a second; a busy loop may be late.
_BELIEVED_MS = 5000

# Requests of sessions on drained servers are counted in windows of a minute.
SESSIONS_WINDOW_MS = 60_000

NOT_CHECKED_YET = "not checked yet"
"""The note of a server whose checks begin."""

_EVENT_OF = {Check.UP: StateEvent.ROSE, Check.DOWN: StateEvent.FELL, Check.CHECKING: StateEvent.CHECKS_BEGAN,
             Check.NONE: StateEvent.CHECKS_ENDED}


class Admin(enum.IntEnum):
    """The state that the operator has set for a server."""

    READY = 0
    DRAIN = 1  # no new requests; running requests finish
    MAINTENANCE = 2  # as DRAIN, and no checks


def now_ms() -> int:
    """Milliseconds of the monotonic clock."""
    return time.monotonic_ns() // 1_000_000


class States:
    """The columns by slot, each a memoryview of integers."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._cells = segment.cells
        layout = segment.layout

        def column(number: int) -> memoryview:
            return segment.cells[layout.column(number)]

        self.used, self.standing, self.moved = column(at.C_USED), column(at.C_STANDING), column(at.C_MOVED)
        self.source, self.leaving = column(at.C_SOURCE), column(at.C_LEAVING)
        self.admin, self.weight_set, self._limit_set = column(at.C_ADMIN), column(at.C_WEIGHT_SET), column(at.C_LIMIT_SET)
        self.check, self.checked = column(at.C_CHECK), column(at.C_CHECKED)
        self.checked_elsewhere = column(at.C_CHECKED_ELSEWHERE)
        self._slots, self._slots_alone = column(at.C_SLOTS), column(at.C_SLOTS_ALONE)
        self.risen, self.risen_change = column(at.C_RISEN), column(at.C_RISEN_CHANGE)
        self.streak, self.ejection = column(at.C_STREAK), column(at.C_EJECTION)
        self.trial, self.trial_until = column(at.C_TRIAL), column(at.C_TRIAL_UNTIL)
        self.ejected_until, self.ejections, self.returned = (
            column(at.C_EJECTED_UNTIL), column(at.C_EJECTIONS), column(at.C_RETURNED))
        self.drained = column(at.C_DRAINED)
        self.times_ejected = column(at.C_TIMES_EJECTED)
        self.checks_passed, self.checks_failed = column(at.C_CHECKS_PASSED), column(at.C_CHECKS_FAILED)
        self.sessions_window, self.sessions, self.last_sessions = (
            column(at.C_SESSIONS_WINDOW), column(at.C_SESSIONS), column(at.C_LAST_SESSIONS))
        self.session_at = column(at.C_SESSION_AT)
        self.failed_at = column(at.C_FAILED)
        self.window, self.window_failures, self.window_requests = (
            column(at.C_WINDOW), column(at.C_WINDOW_FAILURES), column(at.C_WINDOW_REQUESTS))

    @property
    def changes(self) -> int:
        """The number of changes so far that affect which servers may be picked, or their weights."""
        return self._cells[at.H_CHANGES]

    def count_change(self) -> None:
        """Make every worker read the states again at its next request. The lock must be held."""
        self._cells[at.H_CHANGES] += 1

    def set_admin(self, slot: int, state: Admin) -> None:
        """Set the administrative state. The lock must be held."""
        if self.admin[slot] == state:
            return
        if state is Admin.READY:
            self._rise(slot)
        if state is Admin.DRAIN:
            # Before the state, which says that this cell means something.
            self.drained[slot] = now_ms()
        self.admin[slot] = state
        self.count_change()

    def let_go(self, slot: int) -> None:
        """Drain a server that its source does not want any more. The lock must be held."""
        admin = Admin(self.admin[slot])
        if not self.leaving[slot]:
            self.leaving[slot] = admin + 1
        if admin is Admin.READY:
            self.set_admin(slot, Admin.DRAIN)

    def keep(self, slot: int) -> None:
        """Have a server again that was let go, in its administrative state of before. The lock must be held."""
        if before := self.leaving[slot]:
            self.set_admin(slot, Admin(before - 1))
            self.leaving[slot] = 0

    def set_weight(self, slot: int, weight: int) -> None:
        """Set the weight; 0: the configuration's weight applies again. The lock must be held."""
        if self.weight_set[slot] != weight:
            self.weight_set[slot] = weight
            self.count_change()

    def set_limit(self, slot: int, limit: int | None) -> None:
        """Set the most requests in flight, 0: no limit; None: the configuration's limit applies again. The lock must be held."""
        value = 0 if limit is None else limit + 1
        if self._limit_set[slot] != value:
            self._limit_set[slot] = value
            self.count_change()

    def limit_set(self, slot: int) -> int | None:
        """The limit that an operator has set; None: that of the configuration applies."""
        value = self._limit_set[slot]
        return value - 1 if value else None

    def set_slots(self, slot: int, slots: int | None, alone: int | None) -> None:
        """Set the part of the server's limit that this balancer may use, now and once it goes on by itself; None: all of it.

        The lock must be held.
        """
        self._slots_alone[slot] = 0 if alone is None else alone + 1
        value = 0 if slots is None else slots + 1
        if self._slots[slot] != value:
            self._slots[slot] = value
            self.count_change()

    def go_alone(self, slot: int) -> None:
        """This balancer goes on by itself: use the part of the server's limit that is meant for that. The lock must be held."""
        if self._slots[slot] != self._slots_alone[slot]:
            self._slots[slot] = self._slots_alone[slot]
            self.count_change()

    def slots(self, slot: int) -> int | None:
        """The part of the server's limit that this balancer may use; None: all of it."""
        value = self._slots[slot]
        return value - 1 if value else None

    def version(self, slot: int) -> str:
        """Stands for all that operators can change of a server."""
        return f"{Admin(self.admin[slot]).name.lower()}-{self.weight_set[slot]}-{self._limit_set[slot]}"

    def set_check(self, slot: int, state: Check, note: str) -> None:
        """Note a check's result, in words. The lock must be held. Raises InvariantError where the table lacks the step."""
        before = Check(self.check[slot])
        step = after(before, _EVENT_OF[state]) if before is not state else None
        write_note(self._segment.text, self._segment.layout.server_note_byte(slot), note)
        self.checked[slot] = now_ms()
        if step is not None:
            if step.rises:
                self._rise(slot)
            self.check[slot] = step.after
            self.count_change()
            if state is Check.DOWN or step.rises:
                kind = EventKind.SERVER_DOWN if state is Check.DOWN else EventKind.SERVER_UP
                record_server_event(self._segment, slot, kind, note)

    def count_check(self, slot: int, passed: bool) -> None:
        """Count a check that has ended. The lock must be held."""
        (self.checks_passed if passed else self.checks_failed)[slot] += 1

    def forget_check(self, slot: int) -> None:
        """Note that the server is no longer checked. The lock must be held."""
        if self.check[slot] != Check.NONE:
            self.check[slot] = after(Check(self.check[slot]), StateEvent.CHECKS_ENDED).after
            write_note(self._segment.text, self._segment.layout.server_note_byte(slot), "")
            self.count_change()

    def eject(self, slot: int, event: StateEvent, until_ms: int, reason: str = "") -> None:
        """Eject a server for `event` until that instant. The lock must be held. Raises InvariantError where the table lacks
        the step. Without a `reason` that of the table is told."""
        step = after(Ejection(self.ejection[slot]), event)
        # Before the state: if the worker is killed between the two writes, the old state stays, which ignores this cell.
        self.ejected_until[slot] = until_ms
        reason = reason or step.cause
        if event is not StateEvent.TRIAL_LEFT:  # that says nothing of the server: it stays out for the reason of before
            write_note(self._segment.text, self._segment.layout.server_reason_byte(slot), reason)
            self.times_ejected[slot] += 1
        self._set_ejection(slot, step.after)
        seconds = max(0, until_ms - now_ms()) / 1000
        record_server_event(self._segment, slot, EventKind.SERVER_EJECTED, f"for {seconds:.1f} s: {reason}")

    def note_failure(self, slot: int, why: str) -> None:
        """Note why a request got no whole answer from the server, in words. The lock must be held."""
        write_note(self._segment.text, self._segment.layout.server_failure_byte(slot), why)
        self.failed_at[slot] = time.time_ns() // 1_000_000

    def begin_trial(self, slot: int, row: int) -> None:
        """The worker in this row sends the server its trial. The lock must be held. Raises InvariantError unless one is due.

        The worker has to renew it a few times a second, until the trial is over.
        """
        step = after(Ejection(self.ejection[slot]), StateEvent.TRIAL_BEGAN)
        # Before the state: these cells are read only when the state says ON_TRIAL.
        self.trial[slot], self.trial_until[slot] = row + 1, now_ms() + _BELIEVED_MS
        self._set_ejection(slot, step.after)
        record_server_event(self._segment, slot, EventKind.SERVER_TRIAL, step.cause)

    def has_trial(self, slot: int, row: int) -> bool:
        """Whether the server is on trial by a request of the worker in this row. Certain only while the lock is held."""
        return bool(self.ejection[slot] == Ejection.ON_TRIAL and self.trial[slot] == row + 1)

    def renew_trial(self, slot: int, row: int) -> None:
        """Note that the worker in this row still runs its trial of the server. The lock must be held.

        Does nothing when the trial was taken from this worker.
        """
        if self.has_trial(slot, row):
            self.trial_until[slot] = now_ms() + _BELIEVED_MS

    def pass_trial(self, slot: int) -> None:
        """End the ejection of a server that passed its trial. The lock must be held.

        Raises InvariantError when the server is not on trial.
        """
        step = after(Ejection(self.ejection[slot]), StateEvent.TRIAL_PASSED)
        self.returned[slot] = now_ms()
        self._rise(slot)
        self.streak[slot] = 0
        self._set_ejection(slot, step.after)
        self.ejected_until[slot] = 0
        record_server_event(self._segment, slot, EventKind.SERVER_RETURNED, step.cause)

    def end_trials_of(self, rows: Collection[int]) -> None:
        """Make a new trial due for servers whose trial's worker, in one of these rows, has died. The lock must be held."""
        for slot, owner in enumerate(self.trial):
            if owner - 1 in rows and self.ejection[slot] == Ejection.ON_TRIAL:
                self._set_ejection(slot, after(Ejection.ON_TRIAL, StateEvent.TRIAL_DIED).after)

    def count_session_request(self, slot: int) -> None:
        """A session's request goes to a drained server. The lock must be held."""
        now = now_ms()
        age_ms = now - self.sessions_window[slot]
        if age_ms >= SESSIONS_WINDOW_MS:
            self.last_sessions[slot] = self.sessions[slot] if age_ms < 2 * SESSIONS_WINDOW_MS else 0
            self.sessions[slot] = 0
            self.sessions_window[slot] = now
        self.sessions[slot] += 1
        self.session_at[slot] = now

    def session_requests_lately(self, slot: int) -> int:
        """About how many requests of sessions went to a drained server within the last minute; 0 when there was none in it."""
        now = now_ms()
        if self.admin[slot] != Admin.DRAIN or now - self.session_at[slot] >= SESSIONS_WINDOW_MS:
            return 0
        age_ms = now - self.sessions_window[slot]
        if age_ms >= SESSIONS_WINDOW_MS:
            return math.ceil(self.sessions[slot] * max(0, 2 - age_ms / SESSIONS_WINDOW_MS)) or 1
        return self.sessions[slot] + math.ceil(self.last_sessions[slot] * (1 - age_ms / SESSIONS_WINDOW_MS))

    def is_ejected(self, slot: int) -> bool:
        """Whether the server is ejected, waits for its trial or is on trial."""
        return bool(self.ejection[slot] != Ejection.NONE)

    def is_usable(self, slot: int) -> bool:
        """Whether ordinary requests go to the server: it is ready, up or not checked, and not ejected."""
        return self.admin[slot] == Admin.READY and self.check[slot] <= Check.UP and not self.is_ejected(slot)

    def note(self, slot: int) -> str:
        """The last check's result, in words; empty before the first."""
        return read_note(self._segment.text, self._segment.layout.server_note_byte(slot))

    def ejection_reason(self, slot: int) -> str:
        """Why the server was ejected, in words; means nothing of one that is not ejected."""
        return read_note(self._segment.text, self._segment.layout.server_reason_byte(slot))

    def failure(self, slot: int) -> str:
        """Why a request last got no whole answer from the server, in words; means nothing when none has."""
        return read_note(self._segment.text, self._segment.layout.server_failure_byte(slot))

    def let_time_pass(self) -> bool:
        """Make a trial due for each server whose ejection's time is over, or whose trial's worker does not run.

        Returns whether there was such a server. The lock must be held.
        """
        events = self._events_of_time()
        for slot, event in events:
            self._set_ejection(slot, after(Ejection(self.ejection[slot]), event).after)
        return bool(events)

    def is_time(self) -> bool:
        """Whether `let_time_pass` would find anything; needs no lock."""
        return any(self.ejection) and bool(self._events_of_time())

    def _events_of_time(self) -> list[tuple[int, StateEvent]]:
        now, found = now_ms(), []
        for slot, state in enumerate(self.ejection):
            if state == Ejection.EJECTED and self.ejected_until[slot] <= now:
                found.append((slot, StateEvent.TIME_OVER))
            elif state == Ejection.ON_TRIAL and self.trial_until[slot] <= now:
                found.append((slot, StateEvent.TRIAL_STALLED))
        return found

    def _set_ejection(self, slot: int, state: Check | Ejection) -> None:
        self.ejection[slot] = state
        self.count_change()

    def _rise(self, slot: int) -> None:
        """Begin the server's slow start. Outcomes of requests sent before the next counted change are ignored from now on."""
        self.risen[slot] = now_ms()
        self.risen_change[slot] = self.changes + 1

    def close(self) -> None:
        """Release the views, so that the memory can be unmapped."""
        for view in (self.used, self.standing, self.moved, self.source, self.leaving, self.admin, self.weight_set,
                     self._limit_set, self.check, self.checked, self.risen, self.risen_change, self.streak, self.ejection,
                     self.trial, self.trial_until, self.ejected_until, self.ejections, self.returned, self.window,
                     self.window_failures, self.window_requests, self.drained, self.sessions_window, self.sessions,
                     self.last_sessions, self.session_at, self.times_ejected, self.checks_passed, self.checks_failed,
                     self.failed_at, self.checked_elsewhere, self._slots, self._slots_alone):
            view.release()
