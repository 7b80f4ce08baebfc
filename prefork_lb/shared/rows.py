"""The rows of the worker processes: which are in use, who has them, and what a dead worker's row gives back.

A row belongs to a process, known by pid and start time. The pid is written last and cleared last: a process that is killed in
between leaves a free row, or one that the next sweep finds again.
"""
from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from itertools import repeat
from typing import NamedTuple

from prefork_lb.shared import layout as at
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.identity import is_alive, myself
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.sessions_repair import repair_sessions
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.statistics import fold
from prefork_lb.words import count

_WANTED_MS = 1500  # a worker that waits for a row tries again four times a second


class NoRowLeft(SegmentError):
    """Every row belongs to a process that runs."""


class Reclaimed(NamedTuple):
    """What was given back for processes that are gone."""

    workers: int
    claims: int


class Rows:
    """The rows of a segment. Methods that change rows need the ledger's lock; what the others read may change without it."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._cells = segment.cells
        self._layout = segment.layout

    def in_use(self) -> list[int]:
        """The rows in use, dead or alive."""
        return self._segment.rows_in_use()

    def dead(self, among: Collection[int] | None = None) -> list[int]:
        """The rows in use whose process has ended; `among`: of these only. One read of /proc for each row."""
        return [row for row in self.in_use() if (among is None or row in among) and not self.owner(row)]

    def owner(self, row: int) -> int:
        """The pid of the living process that has this row; 0 when there is none."""
        cells, head = self._cells, self._layout.row(row)
        return int(cells[head + at.R_PID]) if is_alive(cells[head + at.R_PID], cells[head + at.R_START]) else 0

    def take(self, is_compiled: bool) -> int:
        """Give a free row to this process. `is_compiled`: it has the compiled modules. Raises NoRowLeft."""
        cells, layout = self._cells, self._layout
        for row in range(layout.rows):
            head = layout.row(row)
            if cells[head + at.R_PID] == 0:
                pid, start = myself()
                cells[head + at.R_START] = start
                cells[head + at.R_GENERATION] = cells[at.H_GENERATION]
                for cell in (at.R_CLIENTS, at.R_LINGERS, at.R_LINGERING, at.R_LAG, at.R_ENDS):
                    cells[head + cell] = 0
                cells[head + at.R_MEMBERS] = cells[at.H_MEMBERS]
                cells[head + at.R_COMPILED] = is_compiled
                cells[head + at.R_PID] = pid
                cells[at.H_JOINS] += 1
                return row
        cells[at.H_ROW_WANTED] = now_ms()
        raise NoRowLeft(f"{self._segment.name}: all {layout.rows} rows for worker processes are in use; "
                        "run fewer workers, or restart gunicorn to make more rows")

    def must_yield(self, row: int) -> bool:
        """Whether the worker of this row has to end: a new worker waits for a row, and this one has lingered longest."""
        cells, layout = self._cells, self._layout
        if now_ms() - cells[at.H_ROW_WANTED] > _WANTED_MS or not cells[at.H_ROW_WANTED]:
            return False
        lingering = [(since, other) for other in self.in_use() if (since := cells[layout.row(other) + at.R_LINGERS])]
        return min(lingering, default=(0, -1))[1] == row

    def oldest_generation(self, with_lingering: bool = True) -> int:
        """The oldest generation that a worker's view was built from; the current one when there is no worker.

        `with_lingering`: workers that were replaced and linger count, too.
        """
        cells, layout = self._cells, self._layout
        heads = [layout.row(row) for row in self.in_use()]
        found = [cells[head + at.R_GENERATION] for head in heads if with_lingering or not cells[head + at.R_LINGERS]]
        return min(found, default=int(cells[at.H_GENERATION]))

    def oldest_members(self) -> int:
        """The changes of membership (`H_MEMBERS`) that every worker's pools have taken into account."""
        cells, layout = self._cells, self._layout
        return min((cells[layout.row(row) + at.R_MEMBERS] for row in self.in_use()), default=int(cells[at.H_MEMBERS]))

    def forget(self, slot: int) -> None:
        """Zero what the rows have counted of a server that is gone, for the next one in its slot. The lock must be held."""
        cells, layout = self._cells, self._layout
        for array in (at.A_REQUESTS, at.A_FAILURES):
            for place in layout.row_arrays(range(layout.rows), array):
                cells[place.start + slot] = 0

    def give_back(self, dead: list[int]) -> Reclaimed:
        """Free these rows: give back their claims, keep their statistics. The lock must be held."""
        cells, layout = self._cells, self._layout
        claims = dict.fromkeys(dead, 0)
        for row in dead:
            for array, past in ((at.A_REQUESTS, at.C_PAST_REQUESTS), (at.A_FAILURES, at.C_PAST_FAILURES)):
                with cells[layout.row_array(row, array)] as counted, cells[layout.column(past)] as column:
                    for slot, number in enumerate(counted):
                        if number:
                            column[slot] += number
                            counted[slot] = 0
            for array in (at.A_CLAIMS, at.A_PENALTIES, at.A_UNANSWERED, at.A_RETRIES, at.A_WAITING, at.A_TICKET, at.A_BELL):
                with cells[layout.row_array(row, array)] as held:
                    if array == at.A_CLAIMS:
                        claims[row] = sum(held)
                    for place, number in enumerate(held):
                        if number:
                            held[place] = 0
            for array in range(at.OWN_ARRAYS if layout.own_lines else 0):
                with cells[layout.own_line_array(row, array)] as held:
                    for place, number in enumerate(held):
                        if number:
                            held[place] = 0
            if layout.keys:
                cells[layout.row_keys(row)] = memoryview(bytes(layout.keys * at.CELL)).cast("q")
            fold(self._segment, row)
        if dead:
            with contextlib.closing(States(self._segment)) as states:
                states.end_trials_of(dead)
            self.recount()
            cells[at.H_RECLAIMED] += sum(claims.values())
        # Last: if this sweep is interrupted earlier, the next sweep still finds the row in use by a dead process.
        for row in dead:
            head = layout.row(row)
            cells[head + at.R_CLIENTS] = cells[head + at.R_LINGERS] = 0
            cells[at.H_ENDED if cells[head + at.R_ENDS] else at.H_DIED] += 1
            pid, cells[head + at.R_PID] = cells[head + at.R_PID], 0
            self._tell_of_end(pid, bool(cells[head + at.R_ENDS]), claims[row])
        return Reclaimed(len(dead), sum(claims.values()))

    def _tell_of_end(self, pid: int, is_orderly: bool, claims: int) -> None:
        """Record that a worker is gone. The lock must be held."""
        kind, how = (EventKind.WORKER_ENDED, "ended") if is_orderly else (EventKind.WORKER_DIED, "died")
        left = f" with {count(claims, 'request')} in flight" if claims else ""
        record_event(self._segment, kind, f"worker {pid} {how}{left}")

    def recount(self) -> None:
        """Recount the totals from the rows, which are right when the totals are not. The lock must be held."""
        cells, layout, rows = self._cells, self._layout, self.in_use()
        for pool, number in enumerate(self._sums(layout.row_arrays(rows, at.A_WAITING), layout.pools)):
            cells[layout.pool(pool) + at.P_WAITING] = number
        counted = {totals: layout.row_arrays(rows, array) for array, totals in (
            (at.A_CLAIMS, at.C_TOTAL), (at.A_PENALTIES, at.C_PENALTY), (at.A_UNANSWERED, at.C_UNANSWERED))}
        if layout.own_lines:
            counted[at.C_OWN_WAITING] = [layout.own_line_array(row, at.O_WAITING) for row in rows]
        if layout.keys:
            self._recount_keys(rows)
        for totals, arrays in counted.items():
            start = layout.column(totals).start
            beside = layout.column(at.C_ELSEWHERE).start if totals == at.C_PENALTY else 0
            for slot, number in enumerate(self._sums(arrays, layout.servers)):
                if beside:
                    number += cells[beside + slot]
                if cells[start + slot] != number:
                    cells[start + slot] = number

    def _recount_keys(self, rows: Iterable[int]) -> None:
        cells, layout = self._cells, self._layout
        sums = [0] * layout.keys
        for row in rows:
            # Few entries are in use. To look for those takes a tenth of the time of adding all.
            for entry, number in enumerate(cells[layout.row_keys(row)].tolist()):
                if number:
                    sums[entry] += number
        start = layout.key_totals.start
        for entry, number in enumerate(sums):
            if cells[start + entry] != number:
                cells[start + entry] = number

    def _sums(self, arrays: Iterable[slice], width: int) -> Iterable[int]:
        """The sums of these arrays of so many cells, or of none, element by element."""
        cells, nothing = self._cells, (b"", bytes(width * at.CELL))
        # Every worker waits meanwhile, and there may be hundreds of rows, most of them with little in them. To see that an array
        # is all zeroes takes a twentieth of the time of adding it.
        counted = [array.tolist() for place in arrays if (array := cells[place]).tobytes() not in nothing]
        return map(sum, zip(*counted, strict=True)) if counted else repeat(0, width)

    def repair(self) -> None:
        """Repair after the lock's last owner was interrupted: recount the totals and reset the memory of every policy.

        The lock must be held.
        """
        cells, layout = self._cells, self._layout
        self.recount()
        for column in at.POLICY_COLUMNS:
            with cells[layout.column(column)] as values:
                for slot in range(layout.servers):
                    values[slot] = 0
        for pool in range(layout.pools):
            start = layout.pool(pool)
            for cell in range(start, start + at.POLICY_CELLS):
                cells[cell] = 0
        repair_sessions(self._segment)
        cells[at.H_REPAIRS] += 1
        # The interrupted section may have changed a server's state, or a pool's servers, without counting the change.
        cells[at.H_MEMBERS] += 1
        cells[at.H_CHANGES] += 1
