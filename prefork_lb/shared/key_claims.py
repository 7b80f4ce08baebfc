"""Requests in flight by key, for limits of a route: exact over all workers, and after any of them dies.

It is the ledger once more, with keys in the place of servers: an entry of the table has a key and its total, and each worker's
row has its own claims on each entry. When a worker dies its row is cleared and the totals are counted again (`shared.rows`). An
entry whose total is 0 is free. Where balancers share, an entry may also say how many of its key this balancer may have at most.
Such entries without a request are the last that are given up for another key. Then the key that had it has its whole limit, until
its share is set again.

The table has a fixed number of entries, in sets; a key's hash says to which set it belongs. While each entry of a set is in use
by another key, a further key finds no room.

Everything happens under the ledger's lock. As in the ledger, a claim is written to the row before the total, and a release to
the total before the row: a worker that is killed in between leaves its claim in its row, until that is given back.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from prefork_lb.errors import InvariantError
from prefork_lb.shared.layout import KEYS_IN_SET
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment

REACHED, NO_ROOM = -1, -2
"""What `claim` returns in the place of an entry."""
_TOGETHER = 4  # shares that are written under the lock at a time: 40 us


class KeyClaims:
    """A worker's hand on the table; `segment.layout.keys` is its room, which must not be 0."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        layout = segment.layout
        self._ledger = ledger
        self._cells = segment.cells
        self._keys, self._totals, self._own = layout.key_hashes.start, layout.key_totals.start, layout.row_keys(ledger.row).start
        self._limits, self._shares = layout.key_limits.start, layout.key_shares.start
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
                place = hashes.index(key)
                entry = begin + place
                cells[self._limits + entry] = limit  # first: others have to know a new limit also while nobody gets in
                share = cells[self._shares + entry]
                if counts[place] >= (min(limit, share - 1) if share else limit):
                    return REACHED
            elif 0 in counts:
                entry = begin + _free(counts, cells[self._shares + begin:self._shares + begin + KEYS_IN_SET].tolist())
                cells[self._shares + entry] = 0  # first: it was the share of another key
                cells[self._limits + entry] = limit
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


class KeyInFlight(NamedTuple):
    """What a key has in flight."""

    key: int
    in_flight: int
    limit: int  # how many its newest request, let in or not, allowed; 0: there was none


class KeyShares:
    """The table for the process that shares with other balancers: what of a key's limit this balancer may use."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        """`segment.layout.keys` may be 0: then there is nothing to share."""
        self._layout, self._cells, self._ledger = segment.layout, segment.cells, ledger

    @property
    def most(self) -> int:
        """The most keys that are to have a share: a quarter of the table."""
        return self._layout.keys // 4

    def are_there(self) -> bool:
        """Whether any key has a share."""
        return any(self._column(self._layout.key_shares))

    def in_flight(self) -> list[KeyInFlight]:
        """All keys with requests in flight or a share. Takes no lock: a key that comes or goes meanwhile may be wrong."""
        layout = self._layout
        totals, shares = self._column(layout.key_totals), self._column(layout.key_shares)
        found = {entry for column in (totals, shares) for entry, number in enumerate(column) if number}
        hashes, limits = self._cells[layout.key_hashes], self._cells[layout.key_limits]
        return [KeyInFlight(hashes[entry], totals[entry] if totals else 0, limits[entry]) for entry in found]

    def set(self, shares: Mapping[int, int]) -> None:
        """Of these keys, at most `most`, this balancer may have so many in flight, 0 or more; of all others as many as their
        limits say.

        Takes the lock for some that change at a time. A key finds no room while each entry of its set has requests in flight.
        """
        column, hashes = self._cells[self._layout.key_shares], self._cells[self._layout.key_hashes]
        known = {entry: share for entry, share in enumerate(self._column(self._layout.key_shares)) if share}
        over = [entry for entry in known if hashes[entry] not in shares]
        for start in range(0, len(over), _TOGETHER):
            with self._ledger.locked():
                for entry in over[start:start + _TOGETHER]:
                    if hashes[entry] not in shares:
                        column[entry] = 0
        present = {hashes[entry]: share for entry, share in known.items()}
        todo = [(key, share) for key, share in shares.items() if present.get(key) != share + 1]
        for start in range(0, len(todo), _TOGETHER):
            with self._ledger.locked():
                for key, share in todo[start:start + _TOGETHER]:
                    self._set(key, share)

    def _set(self, key: int, share: int) -> None:
        cells, layout = self._cells, self._layout
        begin = key % (layout.keys // KEYS_IN_SET) * KEYS_IN_SET
        keys, totals, shares, limits = (column.start + begin for column in (
            layout.key_hashes, layout.key_totals, layout.key_shares, layout.key_limits))
        hashes = cells[keys:keys + KEYS_IN_SET].tolist()
        if key in hashes:
            entry = hashes.index(key)
        else:
            counts = cells[totals:totals + KEYS_IN_SET].tolist()
            if 0 not in counts:
                return
            entry = _free(counts, cells[shares:shares + KEYS_IN_SET].tolist())
            cells[shares + entry] = cells[limits + entry] = 0
            cells[keys + entry] = key
        cells[shares + entry] = share + 1

    def _column(self, place: slice) -> list[int]:
        """The numbers of a column; none when all are 0, which is seen in a tenth of the time."""
        column = self._cells[place]
        return column.tolist() if any(column.tobytes()) else []


def _free(counts: list[int], shares: list[int]) -> int:
    """The entry of a set that is given up for another key: one without a request, and if there is one without a share."""
    for entry, (count, share) in enumerate(zip(counts, shares, strict=True)):
        if not count and not share:
            return entry
    return counts.index(0)
