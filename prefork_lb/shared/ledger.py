"""The ledger: how many requests every server has in flight, exact over all workers and after any of them dies.

For each server there is a total, and for each worker process a row of its own claims. A claim is picked and counted under
one lock, so no two workers decide on the same count. When a process dies its row tells what must be given back; whoever
notices first (a sibling's sweep) clears the row and counts the totals anew. One shared number a server, without rows,
would stay too high for ever after a kill.

Order inside a section matters, for a signal handler may raise anywhere: a claim is written to the row before the total, a
release to the total before the row. So a slot that is off has a claim in the row of the process that was broken off, and
the recount after its end puts it right.
"""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from prefork_lb.errors import InvariantError
from prefork_lb.native.loader import native
from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive, myself
from prefork_lb.shared.lock import RobustLock
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.states import States


class Reclaimed(NamedTuple):
    """What was given back for processes that are gone."""

    workers: int
    claims: int


class Ledger:
    """This process' hand on the ledger of a segment: one row, taken when it is made."""

    def __init__(self, segment: Segment, one_thread: bool = False, takes_row: bool = True) -> None:
        """Take a row. Rows of dead processes are given back first. `one_thread`: no two threads of this process use it.
        Without a row nothing can be claimed; that is for tools and the controller.

        Raises SegmentError when all rows are in use.
        """
        layout = segment.layout
        self.segment = segment
        self._cells = segment.cells
        # In-flight totals by slot. Read under the lock to decide by, without it to look.
        self.totals = segment.cells[layout.column(at.C_TOTAL)]
        # Of requests that failed a short while ago and count as load still.
        self.penalties = segment.cells[layout.column(at.C_PENALTY)]
        self._lock = RobustLock(segment.text, layout.lock_byte, self._repair, one_thread)
        self.acquire, self.release_lock = self._lock.acquire, self._lock.release
        with self.locked():
            self._reclaim(self._dead_rows())
            # Without one its views are those of row 0, which nobody writes to who makes no claims.
            self._row = self._take_row() if takes_row else 0
        self._clients_cell = layout.row(self._row) + at.R_CLIENTS
        self._look_for_siblings()
        (self._claims, self._requests, self._failures, self._penalties, self._retries) = (
            segment.cells[layout.row_array(self._row, array)]
            for array in (at.A_CLAIMS, at.A_REQUESTS, at.A_FAILURES, at.A_PENALTIES, at.A_RETRIES))
        module = native() if takes_row else None
        self.native_claims = module.Claims(
            segment.text, layout.lock_byte, self.totals, self._claims, self._requests, self._failures, self.penalties,
            self._lock.recover,
        ) if module else None
        """The same row for the compiled module; None without one."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the ledger; on the way of a request `acquire` and `release_lock` are used instead."""
        self.acquire()
        try:
            yield
        finally:
            self.release_lock()

    def claim(self, slot: int) -> None:
        """Add one claim on a server to this worker's row. The lock must be held."""
        self._claims[slot] += 1
        self.totals[slot] += 1
        self._requests[slot] += 1

    def release(self, slot: int, failed: bool = False) -> None:
        """Take one claim of this worker back; `failed` counts it as a failure of the server. Takes the lock.

        Raises InvariantError, and changes nothing, when this worker has no claim there.
        """
        if self.native_claims is not None and self.native_claims.release(slot, failed):
            return
        self.acquire()
        try:
            mine = self._claims[slot]
            if mine < 1:
                raise InvariantError(f"release without a claim: slot {slot}, row {self._row}")
            self.totals[slot] -= 1
            self._claims[slot] = mine - 1
            if failed:
                self._failures[slot] += 1
        finally:
            self.release_lock()

    def penalise(self, slot: int, number: int) -> None:
        """Add so many failed requests to what counts as load of a server, or take them off again. Takes the lock."""
        with self.locked():
            self._penalties[slot] += number
            self.penalties[slot] += number

    def requests(self, slots: Iterable[int]) -> int:
        """The requests that these servers have got so far, over all workers."""
        cells, layout = self._cells, self.segment.layout
        starts = [layout.row_array(row, at.A_REQUESTS).start for row in self._rows()]
        starts.append(layout.column(at.C_PAST_REQUESTS).start)
        return sum(cells[start + slot] for slot in slots for start in starts)

    def retries_under_way(self, pool: int) -> int:
        """The retries of a pool, by its number, that go on at the moment, over all workers."""
        cells, layout = self._cells, self.segment.layout
        return sum(cells[layout.row_array(row, at.A_RETRIES).start + pool] for row in self._rows())

    def count_retry(self, pool: int, number: int) -> None:
        """A retry of this worker has begun (1), or ended (-1). The lock must be held."""
        self._retries[pool] += number

    def reclaim_dead(self) -> Reclaimed:
        """Give back the rows of processes that are gone.

        Cheap when nobody died: one look into /proc for each worker.
        """
        reclaimed = Reclaimed(0, 0)
        if self._dead_rows():
            with self.locked():
                # Looked at again under the lock: a sibling may have been faster, and a new worker may have the row by now.
                reclaimed = self._reclaim(self._dead_rows())
        self._look_for_siblings()
        return reclaimed

    @property
    def generation(self) -> int:
        """The number of the server table's state; it changes whenever the table does."""
        return self._cells[at.H_GENERATION]

    def adopt_generation(self, generation: int) -> None:
        """Note that this worker's view was built from `generation`."""
        self._cells[self.segment.layout.row(self._row) + at.R_GENERATION] = generation

    def oldest_generation(self) -> int:
        """The oldest generation that a worker's view was built from. The lock must be held."""
        cells, layout = self._cells, self.segment.layout
        found = [cells[layout.row(row) + at.R_GENERATION] for row in self._rows()]
        return min(found, default=self.generation)

    def note_clients(self, count: int) -> None:
        """Tell the siblings how many client connections this worker has; -1: it accepts no more."""
        self._cells[self._clients_cell] = count + 1

    def note_lingering(self, connections: int) -> None:
        """Tell tools and the master that this worker was replaced and lingers, with so many client connections."""
        head = self.segment.layout.row(self._row)
        self._cells[head + at.R_LINGERING] = connections
        if not self._cells[head + at.R_LINGERS]:
            self._cells[head + at.R_LINGERS] = int(time.time())

    def fewest_clients(self) -> int | None:
        """The fewest client connections that a sibling has; None when no sibling tells."""
        cells = self._cells
        if cells[at.H_JOINS] != self._joins:
            self._look_for_siblings()
        told = [count for cell in self._sibling_cells if (count := cells[cell])]
        return min(told) - 1 if told else None

    @property
    def row(self) -> int:
        """The number of this worker's row."""
        return self._row

    def row_starts(self, array: int) -> list[int]:
        """Where an array lies in each row in use, this worker's own among them."""
        if self._cells[at.H_JOINS] != self._joins:
            self._look_for_siblings()
        layout = self.segment.layout
        return [layout.row_array(row, array).start for row in self._known_rows]

    def _look_for_siblings(self) -> None:
        layout = self.segment.layout
        self._joins = self._cells[at.H_JOINS]
        self._known_rows = self._rows()
        self._sibling_cells = [layout.row(row) + at.R_CLIENTS for row in self._known_rows if row != self._row]

    def close(self) -> None:
        """Detach from the segment. Claims that are still open are given back by a sibling once this process ended."""
        self.native_claims = None  # it holds the buffers
        for view in (self.totals, self.penalties, self._claims, self._requests, self._failures, self._penalties, self._retries):
            view.release()
        self._lock.close()

    def _rows(self) -> list[int]:
        """The rows in use, dead or alive."""
        cells, layout = self._cells, self.segment.layout
        return [row for row in range(layout.rows) if cells[layout.row(row) + at.R_PID]]

    def _dead_rows(self) -> list[int]:
        cells, layout = self._cells, self.segment.layout
        heads = [(row, layout.row(row)) for row in self._rows()]
        return [row for row, head in heads if not is_alive(cells[head + at.R_PID], cells[head + at.R_START])]

    def _take_row(self) -> int:
        cells, layout = self._cells, self.segment.layout
        for row in range(layout.rows):
            head = layout.row(row)
            if cells[head + at.R_PID] == 0:
                pid, start = myself()
                cells[head + at.R_START] = start
                cells[head + at.R_GENERATION] = self.generation
                cells[head + at.R_CLIENTS] = cells[head + at.R_LINGERS] = cells[head + at.R_LINGERING] = 0
                cells[head + at.R_PID] = pid
                cells[at.H_JOINS] += 1
                return row
        raise SegmentError(f"{self.segment.name}: all {layout.rows} rows for worker processes are in use; run fewer workers")

    def _reclaim(self, dead: list[int]) -> Reclaimed:
        cells, layout = self._cells, self.segment.layout
        claims = 0
        for row in dead:
            for array, past in ((at.A_REQUESTS, at.C_PAST_REQUESTS), (at.A_FAILURES, at.C_PAST_FAILURES)):
                with cells[layout.row_array(row, array)] as counted, cells[layout.column(past)] as column:
                    for slot, number in enumerate(counted):
                        if number:
                            column[slot] += number
                            counted[slot] = 0
            for array in (at.A_CLAIMS, at.A_PENALTIES, at.A_RETRIES, at.A_WAITING, at.A_TICKET, at.A_BELL):
                with cells[layout.row_array(row, array)] as held:
                    if array == at.A_CLAIMS:
                        claims += sum(held)
                    for slot, number in enumerate(held):
                        if number:
                            held[slot] = 0
        if dead:
            with contextlib.closing(States(self.segment)) as states:
                states.end_trials_of(dead)
            self._recount()
            cells[at.H_RECLAIMED] += claims
        # Last: whoever is broken off before it leaves a row that somebody will look at again.
        for row in dead:
            cells[layout.row(row) + at.R_CLIENTS] = 0
            cells[layout.row(row) + at.R_PID] = 0
        return Reclaimed(len(dead), claims)

    def _recount(self) -> None:
        """Totals anew from the rows: the rows are the truth."""
        cells, layout = self._cells, self.segment.layout
        for pool, number in enumerate(self._sums(at.A_WAITING)[:layout.pools]):
            cells[layout.pool(pool) + at.P_WAITING] = number
        for array, totals in ((at.A_CLAIMS, self.totals), (at.A_PENALTIES, self.penalties)):
            for slot, number in enumerate(self._sums(array)):
                if totals[slot] != number:
                    totals[slot] = number

    def _sums(self, array: int) -> list[int]:
        cells, layout = self._cells, self.segment.layout
        rows = [cells[layout.row_array(row, array)].tolist() for row in self._rows()]
        return [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * layout.servers

    def _repair(self) -> None:
        """The lock's last owner was broken off inside it: totals from the rows, and every policy starts anew."""
        cells, layout = self._cells, self.segment.layout
        self._recount()
        for column in range(at.C_POLICY, at.C_POLICY + at.POLICY_COLUMNS):
            with cells[layout.column(column)] as values:
                for slot in range(layout.servers):
                    values[slot] = 0
        for pool in range(layout.pools):
            start = layout.pool(pool)
            for cell in range(start, start + at.POLICY_CELLS):
                cells[cell] = 0
        cells[at.H_REPAIRS] += 1
        cells[at.H_CHANGES] += 1  # the section may have changed a server's state, and not counted that
