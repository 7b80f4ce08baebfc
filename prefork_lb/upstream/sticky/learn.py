"""Sessions by a value that a server gives to the client, in a cookie or a field: it is learned from the response."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from prefork_lb.balance.policy import RequestInfo
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.shared.states import now_ms
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.session import MOST_VALUES, NOTHING, Pairs, Session, SessionRules
from prefork_lb.wire.cookies import cookies
from prefork_lb.wire.head import Index

_LONGEST = 4096  # bytes of a value; longer ones are no sessions


class LearnedSticky:
    """The mode `learn`."""

    cookie = b""
    keyed = None

    def __init__(self, servers: Sequence[Server], table: SessionTable, keys: SessionKeys, rules: SessionRules, cookie: str,
                 header: str, idle_s: float, clock_ms: Callable[[], int] = now_ms) -> None:
        """The value is that of `cookie`, or of the field `header` if there is no cookie."""
        self.rules = rules
        self._table = table
        self._keys = keys
        self._cookie = cookie.encode()
        self._header = header.lower().encode()
        self._idle_ms = int(idle_s * 1000)
        self._clock_ms = clock_ms
        self._hashes = {server: keys.server(server.name) for server in servers}
        self._servers = {number: server for server, number in self._hashes.items()}
        self._none = Session(None)

    def read(self, request: RequestInfo, is_https: bool) -> object:
        """The keys of the first values that the client has."""
        if self._cookie:
            values: Iterator[bytes] | Sequence[bytes] = cookies(request.index.get(b"cookie", ()), self._cookie)
        else:
            values = request.index.get(self._header, ())
        return tuple(self._keys.session(value) for value in islice(values, MOST_VALUES) if 0 < len(value) <= _LONGEST) or None

    def find(self, told: object) -> Session:
        if not isinstance(told, tuple):
            return self._none
        now = self._clock_ms()
        for key in told:
            place = self._table.find(key)
            if place is None or now - place.used_ms > self._idle_ms:
                continue
            server = self._servers.get(place.server)
            if server is not None:  # else it is in the pool no more
                self._table.use(key, place, now)
                return Session(server, key)
        return self._none

    def replacement(self, session: Session, candidates: Sequence[Server]) -> Server | None:
        return None

    def settle(self, session: Session, server: Server, answer: Index) -> Pairs:
        """Learn the values that the server has set. A session that another server has answered is with that one now."""
        if server not in self._hashes:  # it has left the pool while it answered
            return NOTHING
        given = answer.get(b"set-cookie" if self._cookie else self._header)
        if given is not None:
            for value in given:
                if self._cookie:
                    name, _, value = value.partition(b";")[0].partition(b"=")
                    if name.strip(b" \t") != self._cookie:
                        continue
                    value = value.strip(b" \t")
                if 0 < len(value) <= _LONGEST:
                    self._put(self._keys.session(value), server)
        if session.server is not None and server is not session.server:
            assert isinstance(session.told, tuple)
            self._put(session.told, server)
        return NOTHING

    def _put(self, key: tuple[int, int], server: Server) -> None:
        number, now = self._hashes[server], self._clock_ms()
        place = self._table.find(key)
        if place is not None and place.server == number and now - place.used_ms <= self._idle_ms:
            self._table.use(key, place, now)  # applications that set the same value with each answer cost no lock
        else:
            self._table.put(key, number, now)
