"""Limits of a rate, exact over all workers: how far each key has used its rate of requests.

The algorithm is GCRA, the leaky bucket as a meter (ITU-T I.371). Of each key one number is kept: the instant at which it would
have made its requests if it had made them at the rate. A key that is ahead of the clock by more than its burst has to wait. So in
a time t a key makes at most `rate * t + burst` requests, and a key whose instant is past needs no entry at all.

The table has a fixed number of entries, in sets of eight; a key's hash says to which set it belongs. In a full set the key that
is least ahead gives way, for it loses the least. So a flood of keys with one request each drives out no key at its limit.

Everything happens under the ledger's lock. A new key's entry is cleared first, so a worker that is killed leaves an entry of the
old key, of none, or of the new one. The instants are of the monotonic clock: they outlive workers, reloads and upgrades, and not
the machine.
"""
from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

from prefork_lb.native.loader import NativeRates, native
from prefork_lb.shared.layout import RATE_CELLS, RATES_IN_SET
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.rate_uses import ToldUses
from prefork_lb.shared.segment import Segment

_SET_CELLS = RATE_CELLS * RATES_IN_SET
_TOGETHER = 32  # keys that are raised under the lock at a time: 60 us


class RateTable:
    """A process' hand on the table; `segment.layout.rates` is its room, which must not be 0."""

    def __init__(self, segment: Segment, ledger: Ledger, told: ToldUses | None = None) -> None:
        """`told`: where other balancers are to know what keys use here."""
        self._ledger = ledger
        self._told = told
        self._cells = segment.cells
        self._start = segment.layout.rates_start
        self._sets = segment.layout.rates // RATES_IN_SET
        self._native = _native(ledger, self._start, self._sets) if told is None else None

    def take(self, key: int, interval_ns: int, ahead_ns: int, now_ns: int) -> int:
        """Count a request of a key that may make one every `interval_ns` nanoseconds, and be `ahead_ns` ahead of that.

        Return 0 when it may be made; else how many nanoseconds the key has to wait, and nothing is counted.
        """
        if self._native is not None:
            wait_ns = self._native.take(key, interval_ns, ahead_ns, now_ns)
            if wait_ns >= 0:
                return wait_ns
        cells, begin = self._cells, self._start + key % self._sets * _SET_CELLS
        ledger = self._ledger
        ledger.acquire()
        try:
            entries = cells[begin:begin + _SET_CELLS].tolist()
            keys = entries[::RATE_CELLS]
            if key in keys:
                place = keys.index(key) * RATE_CELLS
                due = max(entries[place + 1], now_ns)
            else:
                dues = entries[1::RATE_CELLS]
                place = dues.index(min(dues)) * RATE_CELLS
                due = now_ns
                cells[begin + place + 1] = 0
                cells[begin + place] = key
            if due - now_ns > ahead_ns:
                return int(due - now_ns - ahead_ns)
            cells[begin + place + 1] = due + interval_ns
            if self._told is not None:
                self._told.tell(key, interval_ns)
            return 0
        finally:
            ledger.release_lock()

    def raise_to(self, dues: Mapping[int, int], now_ns: int) -> None:
        """Let keys be ahead at least as far as the instants say that are given for them. Takes the lock for some at a time."""
        todo = [(key, due) for key, due in dues.items() if due > now_ns]
        for start in range(0, len(todo), _TOGETHER):
            with self._ledger.locked():
                for key, due in todo[start:start + _TOGETHER]:
                    self._raise(key, due)

    def _raise(self, key: int, due: int) -> None:
        cells, begin = self._cells, self._start + key % self._sets * _SET_CELLS
        entries = cells[begin:begin + _SET_CELLS].tolist()
        keys, dues = entries[::RATE_CELLS], entries[1::RATE_CELLS]
        is_known = key in keys
        place = keys.index(key) if is_known else dues.index(min(dues))
        if dues[place] >= due:
            return
        first = begin + place * RATE_CELLS
        if not is_known:
            cells[first + 1] = 0
            cells[first] = key
        cells[first + 1] = due


def _native(ledger: Ledger, start: int, sets: int) -> NativeRates | None:
    """What counts requests in C; None: Python does. Other balancers are told of uses by the Python alone."""
    module = native()
    claims = ledger.native_claims
    return module.Rates(claims, start, sets, RATES_IN_SET) if module is not None and claims is not None else None


class LimitKeys:
    """Makes the hashes of the keys of one limit. Clients choose keys, so the hash has a secret."""

    def __init__(self, secret: bytes, limit: str) -> None:
        self._hash = hashlib.blake2b(b"rate\0%b\0" % limit.encode(), key=secret, digest_size=8)

    def of(self, key: bytes) -> int:
        """The hash of a key, never 0: that marks an entry that is not in use."""
        hashing = self._hash.copy()
        hashing.update(key)
        return int(struct.unpack("<q", hashing.digest())[0]) or 1
