"""The ledger: how many requests every server has in flight, exact over all workers and after any of them dies.

For each server there is a total, and for each worker process a row of its own claims. A claim is picked and counted under
one lock, so no two workers decide on the same count. When a process dies, its row tells what must be given back (`rows`);
the first process that notices the death clears the row and recounts the totals. With one shared number for each server and
no rows, the number would stay too high for ever after a kill.

A signal handler may raise an exception at any instruction, so the order of writes matters. A claim is written to the row
before the total; a release is written to the total before the row. If a process is interrupted between the two writes, the
claim is still in its row, and the recount after the process ends corrects the total.
"""
from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial

from prefork_lb.errors import InvariantError
from prefork_lb.native.loader import compiled, native
from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.lock import RobustLock
from prefork_lb.shared.rows import Reclaimed, Rows
from prefork_lb.shared.segment import Segment

# The controller is killed when it held the lock at this many looks in a row, one look a second: it does not run any more.
_STOPPED_LOOKS = 10

log = logging.getLogger("prefork_lb")


class Ledger:
    """This process' access to the ledger of a segment. It takes one row when it is made."""

    def __init__(self, segment: Segment, one_thread: bool = False, takes_row: bool = True) -> None:
        """Take a row. Rows of dead processes are given back first. `one_thread`: no two threads of this process use it.
        `takes_row=False` is for tools and the controller, which make no claims.

        Raises NoRowLeft when all rows are in use.
        """
        layout = segment.layout
        self.segment = segment
        self._cells = segment.cells
        self._rows = rows = Rows(segment)
        # In-flight totals by slot. A decision reads them under the lock; a display may read them without it.
        self.totals = segment.cells[layout.column(at.C_TOTAL)]
        # By slot: load beside what is in flight: requests that failed a short while ago, and what other balancers have there.
        self.penalties = segment.cells[layout.column(at.C_PENALTY)]
        # Requests whose response's head has not come, of pools that go by the time of that.
        self.unanswered = segment.cells[layout.column(at.C_UNANSWERED)]
        self._lock = RobustLock(segment.text, layout.lock_byte, rows.repair, one_thread,
                                partial(end_stopped_controller, segment.cells))
        self.acquire, self.release_lock = self._lock.acquire, self._lock.release
        # First without the lock: with hundreds of workers the look takes milliseconds, and all of them may start at once.
        ended = rows.dead()
        is_compiled = takes_row and compiled()
        with self.locked():
            # Looked at again: a sibling may have been faster, and a new worker may have the row by now.
            rows.give_back(rows.dead(ended))
            # Without a row the views are those of row 0; a process that makes no claims writes nothing there.
            self._row = rows.take(is_compiled) if takes_row else 0
        self.own_unanswered = segment.cells[layout.row_array(self._row, at.A_UNANSWERED)]
        """This worker's part of `unanswered`."""
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
        """This row's claims in the compiled module; None when the module is missing or the ledger has no row."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the ledger. The path of a request uses `acquire` and `release_lock` instead, which cost less."""
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
        """Remove one claim of this worker; `failed` counts a failure of the server. Takes the lock.

        Raises InvariantError, and changes nothing, when this worker has no claim there.
        """
        if self.native_claims is not None and self.native_claims.release(slot, failed):
            return
        self.acquire()
        try:
            self.release_locked(slot, failed)
        finally:
            self.release_lock()

    def release_locked(self, slot: int, failed: bool = False) -> None:
        """Like `release`; the lock must be held."""
        mine = self._claims[slot]
        if mine < 1:
            raise InvariantError(f"release without a claim: slot {slot}, row {self._row}")
        self.totals[slot] -= 1
        self._claims[slot] = mine - 1
        if failed:
            self._failures[slot] += 1

    def await_answer(self, slot: int) -> None:
        """A request that this worker has claimed a server for waits for the head of its response. The lock must be held."""
        self.own_unanswered[slot] += 1
        self.unanswered[slot] += 1

    def end_wait(self, slot: int) -> None:
        """A request waits no more: there is an answer, or there will be none. The lock must be held.

        Raises InvariantError, and changes nothing, when no request of this worker waits there.
        """
        mine = self.own_unanswered[slot]
        if mine < 1:
            raise InvariantError(f"no request waits for an answer: slot {slot}, row {self._row}")
        self.unanswered[slot] -= 1
        self.own_unanswered[slot] = mine - 1

    def penalise(self, slot: int, number: int) -> None:
        """Add `number` failed requests to the load of a server; a negative `number` removes them. Takes the lock."""
        with self.locked():
            self._penalties[slot] += number
            self.penalties[slot] += number

    def requests(self, slots: Iterable[int]) -> int:
        """The requests that these servers have received so far, over all workers."""
        cells, layout = self._cells, self.segment.layout
        starts = [layout.row_array(row, at.A_REQUESTS).start for row in self._rows.in_use()]
        starts.append(layout.column(at.C_PAST_REQUESTS).start)
        return sum(cells[start + slot] for slot in slots for start in starts)

    def retries_under_way(self, pool: int) -> int:
        """The retries under way in the pool with this number, over all workers."""
        cells, layout = self._cells, self.segment.layout
        return sum(cells[layout.row_array(row, at.A_RETRIES).start + pool] for row in self._rows.in_use())

    def count_retry(self, pool: int, number: int) -> None:
        """Count a retry of this worker that begins (`number` 1) or ends (-1). The lock must be held."""
        self._retries[pool] += number

    def reclaim_dead(self) -> Reclaimed:
        """Give back the rows of processes that have ended.

        Cheap when no process has: one read of /proc for each row in use.
        """
        reclaimed = Reclaimed(0, 0)
        if ended := self._rows.dead():
            with self.locked():
                # Checked again under the lock: a sibling may have freed the row, and a new worker may have taken it.
                reclaimed = self._rows.give_back(self._rows.dead(ended))
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
        return self._rows.oldest_generation()

    def adopt_members(self, changes: int) -> None:
        """Note that this worker's pools have taken so many changes of membership into account."""
        self._cells[self.segment.layout.row(self._row) + at.R_MEMBERS] = changes

    def has_claims(self, slot: int) -> bool:
        """Whether this worker has requests in flight on a server."""
        return bool(self._claims[slot])

    def must_yield_row(self) -> bool:
        """Whether this worker has to end: a new worker waits for a row, and this worker has lingered longest."""
        return self._rows.must_yield(self._row)

    def note_clients(self, count: int) -> None:
        """Tell the siblings how many client connections this worker has; -1: it no longer accepts connections."""
        self._cells[self._clients_cell] = count + 1

    def note_lingering(self, connections: int) -> None:
        """Tell tools and the master that this worker was replaced and lingers, with so many client connections."""
        head = self.segment.layout.row(self._row)
        self._cells[head + at.R_LINGERING] = connections
        if not self._cells[head + at.R_LINGERS]:
            self._cells[head + at.R_LINGERS] = int(time.time())

    def note_lag(self, seconds: float) -> None:
        """Tell tools how far this worker's loop lags."""
        self._cells[self.segment.layout.row(self._row) + at.R_LAG] = int(seconds * 1e6) + 1

    def note_end(self) -> None:
        """This worker ends in good order: tools must not take it for one that died."""
        self._cells[self.segment.layout.row(self._row) + at.R_ENDS] = 1

    def fewest_clients(self) -> int | None:
        """The smallest number of client connections that a sibling reports; None when no sibling reports one."""
        cells = self._cells
        if cells[at.H_JOINS] != self._joins:
            self._look_for_siblings()
        told = [count for cell in self._sibling_cells if (count := cells[cell])]
        return min(told) - 1 if told else None

    @property
    def row(self) -> int:
        """The number of this worker's row."""
        return self._row

    def known_rows(self) -> list[int]:
        """The rows in use, this worker's own among them."""
        if self._cells[at.H_JOINS] != self._joins:
            self._look_for_siblings()
        return self._known_rows

    def _look_for_siblings(self) -> None:
        layout = self.segment.layout
        self._joins = self._cells[at.H_JOINS]
        self._known_rows = self._rows.in_use()
        self._sibling_cells = [layout.row(row) + at.R_CLIENTS for row in self._known_rows if row != self._row]

    def close(self) -> None:
        """Detach from the segment. A sibling gives back open claims after this process has ended."""
        self.native_claims = None  # it holds the buffers
        for view in (self.totals, self.penalties, self.unanswered, self._claims, self._requests, self._failures, self._penalties,
                     self.own_unanswered, self._retries):
            view.release()
        self._lock.close()


def end_stopped_controller(cells: memoryview, owner: int, looks: int) -> None:
    """Kill the controller, or the process that shares with other balancers, if it is the process `owner`, which has held the lock
    at so many looks, one a second.

    Requests wait meanwhile, and a new one costs nothing. A worker is left alone: it has clients.
    """
    # Here and not where the controller is started: that code needs the lock itself.
    if looks < _STOPPED_LOOKS:
        return
    for what, cell in (("the controller", at.H_CONTROLLER), ("the process that shares with other balancers", at.H_CLUSTER)):
        try:
            if owner == cells[cell] and is_alive(owner, cells[cell + 1]):
                log.error("%s (pid %d) has held the ledger's lock for %d s; it is killed, and another one is started",
                          what, owner, looks)
                os.kill(owner, signal.SIGKILL)
        except OSError as exc:  # no descriptor for /proc: the next look tries again
            log.error("%s (pid %d), which holds the ledger's lock, cannot be ended: %s", what, owner, exc)
