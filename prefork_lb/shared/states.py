"""What decides whether a server may be picked, in shared memory: administrative state, checks, ejection, slow start.

Written under the ledger's lock, by commands, the controller and the workers; read without it. `changed` tells the workers
to look anew: they compare one number a request. Instants are milliseconds of the monotonic clock, which all processes share.
"""
from __future__ import annotations

import enum
import time

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.text import read_note, write_note


class Admin(enum.IntEnum):
    """What the operator wants of a server."""

    READY = 0
    DRAIN = 1  # no new requests; those it has go on
    MAINTENANCE = 2  # the same, and it is not checked


class Check(enum.IntEnum):
    """What the active checks say of a server."""

    NONE = 0  # there are none
    UP = 1
    CHECKING = 2  # no good one yet
    DOWN = 3


class Trial(enum.IntEnum):
    """Of an ejected server whose time is over. A greater number: a trial goes on, and is given up at that instant."""

    NONE = 0
    DUE = 1


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

        self.used = column(at.C_USED)
        self.admin, self.weight_set = column(at.C_ADMIN), column(at.C_WEIGHT_SET)
        self.check, self.checked, self.risen = column(at.C_CHECK), column(at.C_CHECKED), column(at.C_RISEN)
        self.streak, self.trial = column(at.C_STREAK), column(at.C_TRIAL)
        self.ejected_until, self.ejections, self.returned = (
            column(at.C_EJECTED_UNTIL), column(at.C_EJECTIONS), column(at.C_RETURNED))
        self.window, self.window_failures, self.window_requests = (
            column(at.C_WINDOW), column(at.C_WINDOW_FAILURES), column(at.C_WINDOW_REQUESTS))

    @property
    def changes(self) -> int:
        """How often anything has changed that decides about picks."""
        return self._cells[at.H_CHANGES]

    def changed(self) -> None:
        """Let every worker look anew at its next request. The lock must be held."""
        self._cells[at.H_CHANGES] += 1

    def set_admin(self, slot: int, state: Admin) -> None:
        """Set what the operator wants. The lock must be held."""
        if self.admin[slot] == state:
            return
        if state is Admin.READY:
            self.risen[slot] = now_ms()
        self.admin[slot] = state
        self.changed()

    def set_weight(self, slot: int, weight: int) -> None:
        """Set the weight, 0 for that of the configuration. The lock must be held."""
        if self.weight_set[slot] != weight:
            self.weight_set[slot] = weight
            self.changed()

    def set_check(self, slot: int, state: Check, note: str) -> None:
        """Note a check's result, in words. The lock must be held."""
        write_note(self._segment.text, self._segment.layout.server_note_byte(slot), note)
        self.checked[slot] = now_ms()
        if self.check[slot] == state:
            return
        if state is Check.UP and self.check[slot] != Check.NONE:
            self.risen[slot] = now_ms()
        self.check[slot] = state
        self.changed()

    def forget_check(self, slot: int) -> None:
        """There are no checks any more. The lock must be held."""
        if self.check[slot] != Check.NONE:
            self.check[slot] = Check.NONE
            write_note(self._segment.text, self._segment.layout.server_note_byte(slot), "")
            self.changed()

    def is_usable(self, slot: int) -> bool:
        """Whether requests go to it in the ordinary way: it is ready, up as far as checks go, and not ejected."""
        return self.admin[slot] == Admin.READY and self.check[slot] <= Check.UP and not self.ejected_until[slot]

    def note(self, slot: int) -> str:
        """The last check's result, in words; empty before the first."""
        return read_note(self._segment.text, self._segment.layout.server_note_byte(slot))

    def let_time_pass(self) -> bool:
        """Whether an ejection's time is over, or a trial has come to nothing; noted then, so that a trial is due.

        The lock must be held.
        """
        now = now_ms()
        found = False
        for slot in self._times_over(now):
            self.trial[slot] = Trial.DUE
            found = True
        if found:
            self.changed()
        return found

    def is_time(self) -> bool:
        """Whether `let_time_pass` would find anything; needs no lock."""
        return any(self.ejected_until) and bool(self._times_over(now_ms()))

    def _times_over(self, now: int) -> list[int]:
        return [slot for slot, until in enumerate(self.ejected_until)
                if until and until <= now and self.trial[slot] != Trial.DUE and self.trial[slot] <= now]

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self.used, self.admin, self.weight_set, self.check, self.checked, self.risen, self.streak, self.trial,
                     self.ejected_until, self.ejections, self.returned, self.window, self.window_failures,
                     self.window_requests):
            view.release()
