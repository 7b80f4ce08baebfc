"""A request as the front ends hand it to the engine."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prefork_lb.net.stream import Stream, Watched
from prefork_lb.upstream.sticky.session import Session
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import Fields, Index, RequestHead, ResponseHead
from prefork_lb.wire.proxy_protocol import SocketAddress

# RFC 9110 9.2.2. TRACE is idempotent, too, but never gets this far.
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))



class BodySource(Protocol):
    """Where the data of a request's body comes from, without its framing."""

    def read(self, limit: int) -> bytes:
        """The next data, at most `limit` bytes; empty at the end.

        Raises ClientGone when the client left before the end, RequestTimeout when it is silent for too long, BadRequest
        when the body is malformed.
        """

    def wait(self, server: Stream, timeout_s: float) -> bool:
        """Wait until `read` has something to say, or the server's stream has: False then, it has answered early.

        Raises RequestTimeout when nothing comes for `timeout_s`.
        """

    def trailers(self) -> Fields:
        """The trailer fields, once `read` came to the end."""


class Downstream(Watched, Protocol):
    """What the engine asks of the client's connection while it works."""

    def relay(self, head: ResponseHead) -> None:
        """Pass an interim response (1xx) on. Raises ClientGone."""


@dataclass(slots=True)
class Request:
    """One client request; to a policy, the `RequestInfo`."""

    head: RequestHead
    peer: ClientInfo
    body: BodySource
    downstream: Downstream
    source: SocketAddress | None = None  # of the client's connection, for servers that want the PROXY header
    destination: SocketAddress | None = None
    relays_continue: bool = False  # the client waits for 100 Continue, and shall have the server's
    upgrade: bytes = b""  # what the client wants to switch to, when the front end can tunnel
    session: Session | None = None  # with which server it has to do; the engine finds it. None: the pool has no sessions
    key: bytes = b""  # what the pool's key is in this request; the pool sets it

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def target(self) -> bytes:
        return self.head.target

    @property
    def client(self) -> str:
        return self.peer.address

    @property
    def index(self) -> Index:
        return self.head.index

    @property
    def is_idempotent(self) -> bool:
        """Whether the server may see it twice: by its method, or since its Idempotency-Key lets the server know it again
        (draft-ietf-httpapi-idempotency-key-header)."""
        return self.head.method in _IDEMPOTENT or b"idempotency-key" in self.head.index


TrustCheck = Callable[[str], bool]
"""Whether the proxy at this address is believed."""
