"""The last uses of limits of a rate: a ring that workers write, and the process that shares with other balancers reads.

A worker adds an entry under the ledger's lock, and counts it last. So an entry of a worker that is killed is overwritten by the
next one. The reader takes no lock: entries that may have been overwritten while it read are left out. It reads some twenty times
a second; what is above 8,192 uses between two reads is not told to other balancers.
"""
from __future__ import annotations

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment


class ToldUses:
    """A worker's hand on the ring; `segment.layout.rate_uses` must not be 0."""

    def __init__(self, segment: Segment) -> None:
        self._cells = segment.cells
        self._first, self._room = segment.layout.rate_uses_start, segment.layout.rate_uses

    def tell(self, key: int, interval_ns: int) -> None:
        """Add a use of so many nanoseconds of the key's rate. The lock must be held."""
        cells = self._cells
        number = cells[at.H_RATES_USED]
        start = self._first + number % self._room * at.RATE_USE_CELLS
        cells[start], cells[start + 1] = key, interval_ns
        cells[at.H_RATES_USED] = number + 1


class RateUses:
    """The reader's hand on the ring."""

    def __init__(self, segment: Segment) -> None:
        self._cells = segment.cells
        self._first, self._room = segment.layout.rate_uses_start, segment.layout.rate_uses
        self._read = segment.cells[at.H_RATES_USED]

    def news(self) -> dict[int, int]:
        """By key the nanoseconds of its rate that were used since this was asked last."""
        cells, room, first = self._cells, self._room, self._first
        end = cells[at.H_RATES_USED]
        begin = max(self._read, end - room)
        self._read = end
        numbers = range(begin, end)
        entries = [cells[start:start + at.RATE_USE_CELLS].tolist()
                   for start in (first + number % room * at.RATE_USE_CELLS for number in numbers)]
        # A writer may be at work on the entry with the number of the present count.
        lost = max(0, cells[at.H_RATES_USED] - room + 1 - begin)
        found: dict[int, int] = {}
        for key, used in entries[lost:]:
            found[key] = found.get(key, 0) + used
        return found
