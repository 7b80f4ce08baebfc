"""The line of requests that wait for a pool's servers, over all workers, in the order in which they came.

Each one has a ticket. A worker's row shows how many of its requests wait and, of the one that came first, the ticket and
the bell that wakes it: so the head of the whole line is found by a look into each row, and what a dead worker leaves goes
with its row. A bell is an abstract datagram socket with a name that the kernel chose, a number of 20 bits (unix(7), autobind).
"""
from __future__ import annotations

import contextlib
import socket

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger


class Line:
    """This worker's hand on one pool's line."""

    def __init__(self, ledger: Ledger, number: int, cells: memoryview) -> None:
        """`number` is the pool's, `cells` are those of its block."""
        self._ledger = ledger
        self._number = number
        self._pool = cells
        self._cells = ledger.segment.cells
        layout = ledger.segment.layout
        self._waiting, self._ticket, self._bell = (
            layout.row_array(ledger.row, array).start + number for array in (at.A_WAITING, at.A_TICKET, at.A_BELL))
        self._bells: dict[int, int] = {}  # of this worker's requests, by ticket, the first first
        self._ringer: socket.socket | None = None

    @property
    def length(self) -> int:
        """Requests that wait, over all workers."""
        return self._pool[at.P_WAITING]

    def join(self, bell: int) -> int:
        """Stand at the end; the ticket. The ledger's lock must be held."""
        ticket = self._pool[at.P_TICKET] + 1
        self._pool[at.P_TICKET] = ticket
        self._bells[ticket] = bell
        self._show()
        self._pool[at.P_WAITING] += 1
        return ticket

    def leave(self, ticket: int) -> None:
        """Stand in it no longer. The ledger's lock must be held."""
        self._pool[at.P_WAITING] -= 1
        del self._bells[ticket]
        self._show()

    def count_refusal(self) -> None:
        """A request found the line too long. The ledger's lock must be held."""
        self._pool[at.P_REFUSED] += 1

    def is_first(self, ticket: int) -> bool:
        """Whether nobody came earlier. The ledger's lock must be held."""
        return self._first()[0] == ticket

    def ring(self) -> None:
        """Wake the first one. Needs no lock: one that is woken in vain waits on."""
        bell = self._first()[1]
        if bell:
            if self._ringer is None:
                self._ringer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._ringer.setblocking(False)
            # Gone by now: it has rung the next one, or its worker is dead, and the next is woken when the row is given back.
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                self._ringer.sendto(b"!", b"\0%05x" % (bell - 1))

    def ring_for_own(self) -> None:
        """Wake the first one if it is of this worker; in case that somebody died who should have."""
        if self._bells and self.is_first(next(iter(self._bells), 0)):
            self.ring()

    def close(self) -> None:
        """Let go of the socket that rings."""
        if self._ringer is not None:
            self._ringer.close()
            self._ringer = None

    def _first(self) -> tuple[int, int]:
        cells, number = self._cells, self._number
        offset = (at.A_BELL - at.A_TICKET) * self._ledger.segment.layout.servers
        first = 0, 0
        for start in self._ledger.row_starts(at.A_TICKET):
            ticket = cells[start + number]
            if ticket and (not first[0] or ticket < first[0]):
                first = ticket, cells[start + number + offset]
        return first

    def _show(self) -> None:
        first = next(iter(self._bells), 0)
        self._cells[self._ticket] = first
        self._cells[self._bell] = self._bells.get(first, 0)
        self._cells[self._waiting] = len(self._bells)
