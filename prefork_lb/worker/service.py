"""What all client connections of one worker share."""
from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Protocol

from prefork_lb.green.hub import Hub
from prefork_lb.green.pipe import Pipe
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.request import Ended, TrustCheck
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import HeadLimits, RequestHead
from prefork_lb.wire.memo import Memo
from prefork_lb.wire.parse import kept_bytes, parse_request
from prefork_lb.worker.overload import Overload
from prefork_lb.worker.setup import SiblingClients, nothing

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Any]


class ClientTimeouts:
    """The time limits of a client's connection, in seconds unless a comment says otherwise."""

    def __init__(self, head: float, keepalive: float, idle: float, body: float = 0.0, body_rate: int = 500,
                 ahead: int = 0) -> None:
        self.head = head  # for a request's whole head, from its first byte
        self.keepalive = keepalive  # between two requests; 0: a connection serves one
        self.idle = idle  # between two reads, or writes, of a body
        self.body = body  # how long, in all, the worker waits for a request's body; 0: no limit
        self.body_rate = body_rate  # every so many received bytes of it add one second
        self.ahead = ahead  # bytes of a response that are received while its client takes nothing


class ClientConnection(Protocol):
    """A client's connection, as the worker sees it."""

    def end_soon(self) -> None: ...

    def close(self) -> None: ...


class Service:
    """One worker's settings for its client connections, and the connections."""

    def __init__(self, hub: Hub, engine: Engine | None, app: WSGIApp, is_trusted: TrustCheck, limits: HeadLimits,
                 times: ClientTimeouts, ended: Ended | None, settings: Any, siblings: SiblingClients | None,
                 most_lag_s: float = 0.0, note_shed: Callable[[], None] = nothing) -> None:
        """Without an engine all requests go to the WSGI application. `ended` hears of exchanges; None: nobody wants to know of
        them. `settings` are gunicorn's."""
        self.hub = hub
        self.engine = engine
        self.app = app
        self.is_trusted = is_trusted
        self.limits = limits
        self.times = times
        self.ended = ended
        self.settings = settings
        self.requests = 0  # answered
        self.closing = False  # the worker ends
        self.keeps = times.keepalive > 0  # connections go on after a response
        self.connections: set[ClientConnection] = set()
        self.overload = Overload(hub, most_lag_s, note_lag=siblings.note_lag if siblings else lambda _: None, note_shed=note_shed)
        self.on_end: list[Callable[[], None]] = []  # called whenever a connection has ended
        self.pipe = Pipe()  # for large bodies
        self._siblings = siblings
        # A request's head, blank line included, from its bytes; raises DownstreamError. The result is shared: do not change it.
        self.parse = Memo[bytes, RequestHead](lambda block: parse_request(block, limits), kept_bytes)
        self._date = (0, b"")

    def add(self, connection: ClientConnection) -> None:
        """A client has connected."""
        self.connections.add(connection)
        if self._siblings is not None and not self.closing:
            self._siblings.note_clients(len(self.connections))

    def remove(self, connection: ClientConnection) -> None:
        """A client's connection has ended."""
        self.connections.discard(connection)
        if self._siblings is not None and not self.closing:
            self._siblings.note_clients(len(self.connections))
        for look in self.on_end:
            look()

    def close_soon(self) -> None:
        """Let every connection end as soon as its client is served."""
        self.closing = True
        self.keeps = False
        if self._siblings is not None:
            self._siblings.note_clients(-1)
        for connection in list(self.connections):
            connection.end_soon()

    def date(self) -> bytes:
        """Now, as in a Date field (RFC 9110 5.6.7)."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = now, formatdate(now, usegmt=True).encode()
        return self._date[1]


@lru_cache(maxsize=4096)
def client_info(address: str, scheme: bytes, port: int, trusted: bool) -> ClientInfo:
    """The same object for the same client: caches elsewhere find their results by its identity."""
    return ClientInfo(address, scheme, port, trusted)
