"""The line of requests that wait for a pool's servers, over all workers, in the order in which they came.

A server may have a line of its own, of requests that wait for this one because their sessions are there.

Each request has a ticket. A worker's row shows, for each pool, how many of its requests wait and the ticket of the first of them.
One more cell holds the bell that wakes this request, and the instant until which the siblings believe that the worker answers the
bell. So a worker finds the first request of the whole line by reading each row. When a worker dies, its requests leave the line
with its row.

A worker can be alive and not run: a signal has stopped it, the host swaps, or its loop hangs. Its requests must not hold up those
of its siblings. So a worker renews the instant a few times a second while its requests wait, but never beyond the request's own
deadline. All workers skip a ticket whose instant has passed. When the worker runs again, it renews the instant, and its requests
have their old places in the line.

A bell is an abstract datagram socket with a name that the kernel chose, a number of 20 bits (unix(7), autobind).
"""
from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.refusals import count_refusal
from prefork_lb.shared.states import now_ms

# How long siblings wait for a worker that does not run. It renews four times a second; a busy loop may be late.
_BELIEVED_MS = 1000
# Bits of the cell for the bell: 20 for its number, plus one, as 0 means none. Milliseconds of the monotonic clock are above them.
_BELL_BITS = 21
_BELL = (1 << _BELL_BITS) - 1


class Spots(NamedTuple):
    """Where a line lies in shared memory: the cells that all workers share, then those of row 0."""

    last_ticket: int
    total: int
    pool: int  # its number
    waited: int  # the pool's number of requests that have waited; the next cell has the time
    waiting: int
    ticket: int
    bell: int
    stride: int  # from one row to the next


def pool_spots(layout: Layout, number: int) -> Spots:
    """The line of a pool, by its number."""
    block = layout.pool(number)
    waiting, ticket, bell = (layout.row_array(0, array).start + number for array in (at.A_WAITING, at.A_TICKET, at.A_BELL))
    return Spots(block + at.P_TICKET, block + at.P_WAITING, number, block + at.P_QUEUED, waiting, ticket, bell,
                 layout.row(1) - layout.row(0))


def server_spots(layout: Layout, number: int, slot: int) -> Spots:
    """The own line of a server of the pool with this number. There is none without `layout.own_lines`."""
    waiting, ticket, bell = (layout.own_line_array(0, array).start + slot for array in (at.O_WAITING, at.O_TICKET, at.O_BELL))
    return Spots(layout.column(at.C_OWN_TICKET).start + slot, layout.column(at.C_OWN_WAITING).start + slot,
                 number, layout.pool(number) + at.P_QUEUED, waiting, ticket, bell,
                 layout.own_line_array(1, 0).start - layout.own_line_array(0, 0).start)


class _Waiter(NamedTuple):
    bell: int
    deadline_ms: int


class WaitingLine:
    """This worker's access to one line."""

    def __init__(self, ledger: Ledger, spots: Spots, ringer: socket.socket | None = None) -> None:
        """`ringer` is the socket of another line, which rings for this one too; None: it gets one of its own."""
        self._ledger = ledger
        self._spots = spots
        self._cells = ledger.segment.cells
        start = ledger.row * spots.stride
        self._waiting, self._ticket, self._bell = spots.waiting + start, spots.ticket + start, spots.bell + start
        self._waiters: dict[int, _Waiter] = {}  # this worker's requests by ticket, in the order in which they came
        # Made here, and not at the first ring: a worker that is out of descriptors by then must still wake others.
        self._owns_ringer = ringer is None
        self.ringer = ringer or socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @property
    def length(self) -> int:
        """Requests that wait, over all workers."""
        return self._cells[self._spots.total]

    @property
    def answering(self) -> int:
        """Requests that wait in workers that run. Reads each row in use."""
        cells, now = self._cells, now_ms()
        return sum(cells[waiting] for _, bell, waiting in self._row_cells() if cells[bell] >> _BELL_BITS > now)

    def join(self, bell: int, deadline_ms: int) -> int:
        """Add a request at the end; returns its ticket. The ledger's lock must be held.

        All workers skip the request from `deadline_ms` on (monotonic clock, milliseconds).
        """
        ticket = self._cells[self._spots.last_ticket] + 1
        self._cells[self._spots.last_ticket] = ticket
        self._waiters[ticket] = _Waiter(bell, deadline_ms)
        self._show()
        self._cells[self._spots.total] += 1
        return ticket

    def leave(self, ticket: int, waited_s: float) -> None:
        """Take a request out that has waited for so long. The ledger's lock must be held."""
        self._cells[self._spots.total] -= 1
        del self._waiters[ticket]
        self._show()
        self._cells[self._spots.waited] += 1
        self._cells[self._spots.waited + 1] += int(waited_s * 1e6)

    def count_refusal(self) -> None:
        """Count a request that was refused because the line is too long. The ledger's lock must be held."""
        count_refusal(self._ledger.segment, self._spots.pool, "requests are refused: the queue is full (queue.size)")

    def is_first(self, ticket: int) -> bool:
        """Whether this request is the first in the line that is not skipped. The ledger's lock must be held."""
        if ticket in self._waiters:
            self._show()  # this worker runs; its row may say otherwise
        return self._first()[0] == ticket

    def ring(self) -> None:
        """Wake the first request. Needs no lock: a request that is woken too early goes on waiting."""
        bell = self._first()[1]
        if bell:
            # A release must not fail because of a ring, and no error loses a request. Refused: the request has left and rung the
            # next one, or its worker is dead and the next request is woken when the row is given back. Full: earlier rings wait
            # to be read. Any other error, as no memory for the datagram: `tick` of the waiting worker rings again.
            with contextlib.suppress(OSError):
                self.ringer.sendto(b"!", b"\0%05x" % (bell - 1))

    def tick(self) -> None:
        """Show that this worker runs, and wake the first request if it is this worker's.

        The worker that should have rung may have died. Call this a few times a second. Takes the ledger's lock when requests of
        this worker wait.
        """
        if not self._waiters:
            return
        with self._ledger.locked():
            self._show()
            is_own = self._first()[0] in self._waiters
        if is_own:
            self.ring()

    def close(self) -> None:
        """Close the socket that rings."""
        if self._owns_ringer:
            self.ringer.close()

    def _first(self) -> tuple[int, int]:
        """Ticket and bell of the request whose turn it is; zeros when there is none."""
        cells, now = self._cells, now_ms()
        first = 0, 0
        for ticket_cell, bell_cell, _ in self._row_cells():
            ticket = cells[ticket_cell]
            if ticket and (not first[0] or ticket < first[0]):
                shown = cells[bell_cell]
                if shown >> _BELL_BITS > now:
                    first = ticket, shown & _BELL
        return first

    def _row_cells(self) -> list[tuple[int, int, int]]:
        """Where ticket, bell and number of waiting requests stand in each row in use."""
        spots = self._spots
        starts = [row * spots.stride for row in self._ledger.known_rows()]
        return [(spots.ticket + start, spots.bell + start, spots.waiting + start) for start in starts]

    @property
    def is_answered(self) -> bool:
        """Whether the worker of a request that waits here runs. The ledger's lock must be held."""
        return bool(self.length) and self._first()[0] > 0

    def _show(self) -> None:
        """Write this worker's cells. The ledger's lock must be held."""
        now = now_ms()
        first = bell = until = 0
        for ticket, waiter in self._waiters.items():
            if waiter.deadline_ms > now:
                first, bell, until = ticket, waiter.bell, min(waiter.deadline_ms, now + _BELIEVED_MS)
                break
        self._cells[self._ticket] = first
        self._cells[self._bell] = until << _BELL_BITS | bell
        self._cells[self._waiting] = len(self._waiters)
