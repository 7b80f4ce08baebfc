"""The table of learned sessions: which server a session belongs to, for all workers at once.

An entry is known by a keyed hash of 128 bits of the pool and the session's value; the value itself is stored nowhere. It names
the server by a hash of the pool and the address, not by a slot: slots are given to other servers after a reload.

    header   cells, of which one counts the changes
    buckets  the first entry of each, by the low bits of the hash; entries of one bucket are a chain
    entries  hash, server, time of the last use, neighbours in the order of use, next of the chain

Entries are in a list in the order of their last use. A full table gives up the one that was not used for longest. An entry that
is used again within a second keeps its place, so most look-ups write nothing and take no lock.

The table changes under the ledger's lock. A look-up takes no lock. When it finds an entry, it reads the server and then compares
the hash once more. When it finds none, a chain may have changed meanwhile. So the result counts only when the number of changes
is even and the same before and after; else the look-up is made again under the lock. All of this needs stores that are seen in
their order, as on x86; on other machines each look-up takes the lock.

The number is odd while a change goes on. A worker that is killed then leaves it odd. The next process that takes the lock builds
chains and list anew from the entries: a change writes an entry's hash last, and clears it first.
"""
from __future__ import annotations

import platform
import struct
from collections import Counter
from typing import NamedTuple

from prefork_lb.shared import layout as at
from prefork_lb.shared.layout import E_CHAIN, E_HIGH, E_LOW, E_NEWER, E_OLDER, E_SERVER, E_USED, SESSION_CELLS
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.sessions_repair import repair_sessions

_READS_NEED_NO_LOCK = platform.machine() in ("x86_64", "AMD64", "i686")
_MOST_STEPS = 64  # of a walk without the lock: a chain that changes meanwhile could be a ring
_AGAIN_MS = 1000  # an entry that was used so lately is not moved
_COUNTED_AT_ONCE = 10_000  # entries; the copy of a whole table might be large


class LearnedSession(NamedTuple):
    """A session in the table."""

    server: int  # as `server_hash` has it
    used_ms: int  # when it was last used, to a second; of the monotonic clock


class SessionKeys:
    """Makes the hashes of one pool's sessions and servers. Clients choose values, so the hash has a secret."""

    def __init__(self, secret: bytes, pool: str, shared: bytes = b"") -> None:
        """`shared` is a secret that other balancers have, too: a session has the same hash there. Without, `secret` hashes it."""
        import hashlib  # OpenSSL comes with it: 1 MiB of a controller without learned sessions

        key = hashlib.blake2b(shared, digest_size=32).digest() if shared else secret
        self._session = hashlib.blake2b(b"session\0%b\0" % pool.encode(), key=key, digest_size=16)
        self._server = hashlib.blake2b(b"server\0%b\0" % pool.encode(), key=secret, digest_size=8)

    def session(self, value: bytes) -> tuple[int, int]:
        """The hash of a session's value."""
        hashing = self._session.copy()
        hashing.update(value)
        high, low = struct.unpack("<qq", hashing.digest())
        return high or 1, low  # 0 marks an entry that is not in use

    def server(self, address: str) -> int:
        """The hash of a server."""
        hashing = self._server.copy()
        hashing.update(address.encode())
        return int(struct.unpack("<q", hashing.digest())[0]) or 1


class SessionTable:
    """A process' hand on the table; `segment.layout.sessions` is its room, which must not be 0."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        self._ledger = ledger
        self._segment = segment
        self._cells = segment.cells
        self._room = segment.layout.sessions
        self._head = segment.layout.sessions_start
        self._buckets = self._head + at.SESSION_HEAD_CELLS
        self._mask = segment.layout.session_buckets - 1
        # Entries are numbered from 1: 0 is none.
        self._entries = self._buckets + segment.layout.session_buckets - SESSION_CELLS

    def find(self, key: tuple[int, int]) -> LearnedSession | None:
        """Where a session is; None: it is not known."""
        if _READS_NEED_NO_LOCK:
            cells, changes = self._cells, self._head
            before = cells[changes]
            place = self._look(key)
            if place is not None or (before == cells[changes] and not before & 1):
                return place
        with self._ledger.locked():
            repair_sessions(self._segment)
            return self._look(key)

    def _look(self, key: tuple[int, int]) -> LearnedSession | None:
        cells = self._cells
        high, low = key
        number = cells[self._buckets + (low & self._mask)]
        for _ in range(_MOST_STEPS):
            if not number:
                return None
            entry = self._entries + number * SESSION_CELLS
            if cells[entry] == high and cells[entry + E_LOW] == low:
                place = LearnedSession(cells[entry + E_SERVER], cells[entry + E_USED])
                if cells[entry] == high and cells[entry + E_LOW] == low:
                    return place
            number = cells[entry + E_CHAIN]
        # Beyond what hashes make by chance. Under the lock the chain stands still.
        return self._look_far(key, number)

    def _look_far(self, key: tuple[int, int], number: int) -> LearnedSession | None:
        cells = self._cells
        for _ in range(self._room):
            if not number:
                break
            entry = self._entries + number * SESSION_CELLS
            if (cells[entry], cells[entry + E_LOW]) == key:
                return LearnedSession(cells[entry + E_SERVER], cells[entry + E_USED])
            number = cells[entry + E_CHAIN]
        return None

    def put(self, key: tuple[int, int], server: int, now_ms: int) -> None:
        """The session is at this server, and is used now. Takes the ledger's lock."""
        with self._ledger.locked():
            self._begin()
            number = self._number(key)
            if number:
                self._unlink(number)
            else:
                number = self._free_entry()
                self._fill(number, key, server, now_ms)
            entry = self._entries + number * SESSION_CELLS
            self._cells[entry + E_SERVER], self._cells[entry + E_USED] = server, now_ms
            self._link_newest(number)
            self._end()

    def use(self, key: tuple[int, int], place: LearnedSession, now_ms: int) -> None:
        """The session that `find` has found is used. Takes the ledger's lock once in a second at most."""
        if now_ms - place.used_ms < _AGAIN_MS:
            return
        with self._ledger.locked():
            self._begin()
            number = self._number(key)
            if number:  # else it had to go meanwhile
                self._unlink(number)
                self._cells[self._entries + number * SESSION_CELLS + E_USED] = now_ms
                self._link_newest(number)
            self._end()

    def recent(self, since_ms: int, most: int) -> list[tuple[tuple[int, int], LearnedSession]]:
        """The sessions that were used since then, the newest first, `most` at most. Takes the ledger's lock."""
        cells = self._cells
        found: list[tuple[tuple[int, int], LearnedSession]] = []
        with self._ledger.locked():
            repair_sessions(self._segment)
            number = cells[self._head + at.T_NEWEST]
            while number and len(found) < most:
                entry = self._entries + number * SESSION_CELLS
                high, low, server, used, number = cells[entry:entry + at.E_NEWER].tolist()
                if used < since_ms:
                    break
                found.append(((high, low), LearnedSession(server, used)))
        return found

    def _begin(self) -> None:
        repair_sessions(self._segment)  # a signal handler may have raised in the middle of a change
        self._cells[self._head] += 1

    def _end(self) -> None:
        self._cells[self._head] += 1

    def _number(self, key: tuple[int, int]) -> int:
        cells = self._cells
        number: int = cells[self._buckets + (key[1] & self._mask)]
        while number:
            entry = self._entries + number * SESSION_CELLS
            if cells[entry] == key[0] and cells[entry + E_LOW] == key[1]:
                break
            number = cells[entry + E_CHAIN]
        return number

    def _free_entry(self) -> int:
        """The number of an entry that is in no chain and not in the list."""
        cells, head = self._cells, self._head
        fresh: int = cells[head + at.T_FRESH]
        if fresh < self._room:
            cells[head + at.T_FRESH] = fresh + 1
            return fresh + 1
        number: int = cells[head + at.T_OLDEST]
        entry = self._entries + number * SESSION_CELLS
        cells[entry] = 0  # from here on it is none: whoever builds the table anew leaves it out
        self._unlink(number)
        # Out of its chain.
        before = self._buckets + (cells[entry + E_LOW] & self._mask)
        while cells[before] != number:
            before = self._entries + cells[before] * SESSION_CELLS + E_CHAIN
        cells[before] = cells[entry + E_CHAIN]
        cells[head + at.T_GIVEN_UP] += 1
        return number

    def _fill(self, number: int, key: tuple[int, int], server: int, now_ms: int) -> None:
        cells = self._cells
        entry = self._entries + number * SESSION_CELLS
        bucket = self._buckets + (key[1] & self._mask)
        cells[entry + E_SERVER], cells[entry + E_USED], cells[entry + E_LOW] = server, now_ms, key[1]
        cells[entry + E_CHAIN] = cells[bucket]
        cells[entry] = key[0]
        cells[bucket] = number

    def _unlink(self, number: int) -> None:
        cells, entry = self._cells, self._entries + number * SESSION_CELLS
        older, newer = cells[entry + E_OLDER], cells[entry + E_NEWER]
        cells[self._entries + older * SESSION_CELLS + E_NEWER if older else self._head + at.T_OLDEST] = newer
        cells[self._entries + newer * SESSION_CELLS + E_OLDER if newer else self._head + at.T_NEWEST] = older

    def _link_newest(self, number: int) -> None:
        cells, head, entry = self._cells, self._head, self._entries + number * SESSION_CELLS
        newest = cells[head + at.T_NEWEST]
        cells[entry + E_OLDER], cells[entry + E_NEWER] = newest, 0
        cells[self._entries + newest * SESSION_CELLS + E_NEWER if newest else head + at.T_OLDEST] = number
        cells[head + at.T_NEWEST] = number


def count_sessions(segment: Segment, since_ms: int) -> Counter[int]:
    """How many sessions each server has that were used since then, by `SessionKeys.server`. Reads the whole table, without the
    lock."""
    cells, layout = segment.cells, segment.layout
    found: Counter[int] = Counter()
    if not layout.sessions:
        return found
    head = layout.sessions_start
    start = head + at.SESSION_HEAD_CELLS + layout.session_buckets
    end = start + SESSION_CELLS * cells[head + at.T_FRESH]
    for part in range(start, end, SESSION_CELLS * _COUNTED_AT_ONCE):
        stop = min(end, part + SESSION_CELLS * _COUNTED_AT_ONCE)
        keys, servers, used = (list(cells[part + offset:stop:SESSION_CELLS]) for offset in (E_HIGH, E_SERVER, E_USED))
        found.update(server for key, server, when in zip(keys, servers, used, strict=True) if key and when >= since_ms)
    return found
