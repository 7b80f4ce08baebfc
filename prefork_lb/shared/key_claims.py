"""Requests in flight by key, for limits of a route: exact over all workers, and after any of them dies.

It is the ledger once more, with keys in the place of servers: an entry of the table has a key and its total, and each worker's
row has its own claims on each entry. When a worker dies its row is cleared and the totals are counted again (`shared.rows`). An
entry whose total is 0 is free.

The table has a fixed number of entries, in sets; a key's hash says to which set it belongs. While each entry of a set is in use
by another key, a further key finds no room.

Everything happens under the ledger's lock. As in the ledger, a claim is written to the row before the total, and a release to
the total before the row: a worker that is killed in between leaves its claim in its row, until that is given back.
"""
from __future__ import annotations

from prefork_lb.errors import InvariantError
from prefork_lb.shared.layout import KEYS_IN_SET
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment

REACHED, NO_ROOM = -1, -2
"""What `claim` returns in the place of an entry."""


class KeyClaims:
    """A worker's hand on the table; `segment.layout.keys` is its room, which must not be 0."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        layout = segment.layout
        self._ledger = ledger
        self._cells = segment.cells
        self._keys, self._totals, self._own = layout.key_hashes.start, layout.key_totals.start, layout.row_keys(ledger.row).start
        self._sets = layout.keys // KEYS_IN_SET

    def claim(self, key: int, limit: int) -> int:
        """Count a request of a key that may have `limit` in flight. Return the entry, for `release`; REACHED when there are so
        many, NO_ROOM when its set is full of others. Then nothing is counted."""
        cells, keys, totals, begin = self._cells, self._keys, self._totals, key % self._sets * KEYS_IN_SET
        ledger = self._ledger
        ledger.acquire()
        try:
            counts = cells[totals + begin:totals + begin + KEYS_IN_SET].tolist()
            hashes = cells[keys + begin:keys + begin + KEYS_IN_SET].tolist()
            if key in hashes:  # also when its total is 0: a key is in one entry at most
                entry = hashes.index(key)
                if counts[entry] >= limit:
                    return REACHED
                entry += begin
            elif 0 in counts:
                entry = begin + counts.index(0)
                cells[keys + entry] = key
            else:
                return NO_ROOM
            cells[self._own + entry] += 1
            cells[totals + entry] += 1
            return int(entry)
        finally:
            ledger.release_lock()

    def release(self, entry: int) -> None:
        """Take a claim of this worker back. Raises InvariantError, and changes nothing, when it has none there."""
        cells, own = self._cells, self._own + entry
        ledger = self._ledger
        ledger.acquire()
        try:
            mine = cells[own]
            if mine < 1:
                raise InvariantError(f"release without a claim: entry {entry} of the keys, row {ledger.row}")
            cells[self._totals + entry] -= 1
            cells[own] = mine - 1
        finally:
            ledger.release_lock()
