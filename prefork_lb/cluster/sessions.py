"""Learned sessions: what one balancer learns the others learn from it.

Each passes on where its sessions are, once, and again when one has moved. A session is known by a hash with a secret that all
balancers have; servers go by name, since each balancer has a hash of its own for them.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from prefork_lb.cluster.report import Key
from prefork_lb.cluster.store import Received
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import now_ms

_MOST = 256  # are looked at, at an exchange, under the ledger's lock: 0.5 ms
_REMEMBERED = 100_000  # of those that were passed on


class SessionPlace(Struct, array_like=True, frozen=True):
    """A session, and where it is."""

    pool: str
    address: str
    high: int
    low: int
    age_ms: int  # since it was last used


class SharedSessions:
    """This balancer's part."""

    def __init__(self, segment: Segment, ledger: Ledger) -> None:
        self._segment = segment
        self._table = SessionTable(segment, ledger)
        self._told: dict[tuple[int, int], int] = {}  # by session the server that all know of
        self._hashes: dict[Key, int] = {}
        self._since_ms = 0
        self.after = b"0-0"  # the newest message that has been read: a newcomer begins with all that the store has

    def look(self, servers: Sequence[Key]) -> bytes | None:
        """What the others are to know now; None: nothing."""
        by_hash = {number: key for key, number in self._known(servers).items()}
        now, found = now_ms(), []
        for key, place in self._table.recent(self._since_ms, _MOST):
            server = by_hash.get(place.server)
            if server is not None and self._told.get(key) != place.server:
                self._told[key] = place.server
                found.append(SessionPlace(*server, *key, max(0, now - place.used_ms)))
        self._since_ms = now - 1
        while len(self._told) > _REMEMBERED:
            self._told.pop(next(iter(self._told)))
        return msgspec.msgpack.encode(found) if found else None

    def adopt(self, servers: Sequence[Key], received: Received) -> None:
        """Take over what was passed on, this balancer's own included. A session is where it was used last."""
        hashes, now = self._known(servers), now_ms()
        self.after = received.sessions_after
        for passed_ms, message in received.sessions:
            waited_ms = max(0, received.now_ms - passed_ms)
            try:
                passed = msgspec.msgpack.decode(message, type=list[SessionPlace])
            except msgspec.MsgspecError:
                continue  # of another version
            for each in passed:
                server, key = hashes.get((each.pool, each.address)), (each.high, each.low)
                if server is None:
                    continue
                place = self._table.find(key)
                used_ms = now - waited_ms - each.age_ms
                if place is None or (place.server != server and place.used_ms < used_ms):
                    self._told[key] = server
                    self._table.put(key, server, used_ms)

    def _known(self, servers: Sequence[Key]) -> Mapping[Key, int]:
        """This balancer's hash of each server."""
        if len(self._hashes) != len(servers) or any(key not in self._hashes for key in servers):
            secret = self._segment.secret
            self._hashes = {(pool, address): SessionKeys(secret, pool).server(address) for pool, address in servers}
        return self._hashes
