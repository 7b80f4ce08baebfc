"""A request as the front ends hand it to the engine."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from prefork_lb.errors import ClientGone, OwnAnswer, ProxyError
from prefork_lb.net.stream import Stream
from prefork_lb.proxy.inbound import Downstream
from prefork_lb.proxy.plan import Plan
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.tracing import Identity
from prefork_lb.routing.guards import Passed
from prefork_lb.routing.serving import NO_PAGES, OwnPages
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.session import Session
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import Fields, Index, RequestHead
from prefork_lb.wire.proxy_protocol import SocketAddress

# RFC 9110 9.2.2. TRACE is idempotent, too, but never gets this far.
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


FINISHED: Final = "finished"
"""How an exchange ended that came to its end; else it is the `ending` of an error."""

FieldPairs = Sequence[tuple[bytes, bytes]]

NO_HEAD: Final = RequestHead(b"-", b"-", 1, [])
"""In the place of a head that could not be read."""


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


class Request:
    """One client request; to a policy, the `RequestInfo`.

    It is also the record of its exchange: the engine and the front end note in it what became of the request, and the front end
    hands it to whoever counts or logs exchanges (`Ended`). What few requests have, or not yet, is an attribute of the class: it
    costs nothing until it is noted.
    """

    relays_continue = False  # the client waits for 100 Continue, and shall have the server's
    upgrade = b""  # what the client wants to switch to, when the front end can tunnel
    session: Session | None = None  # with which server it has to do; the engine finds it. None: the pool has no sessions
    passed: Passed | None = None  # what the guards of its route say of it; None: the route has none
    pages: OwnPages = NO_PAGES  # what its route says of answers of the balancer
    key = b""  # what the pool's key is in this request; the pool sets it
    chosen_key = b""  # that a filter wants in its place
    filtering: object = None  # what filters see of it (`proxy.filtering`); None: there are none
    # The record. Instants are of the engine's clock.
    identity: Identity | None = None  # how it is called; None: it has no name
    plan: Plan | None = None  # None: refused before a pool was found
    leased_at = 0.0  # the first server was claimed; 0: none was
    answered_at = 0.0  # the head of the response had come; 0: none came
    queue_s = 0.0  # of waits in a queue
    connect_s = 0.0  # of connecting to servers, all attempts together
    attempts = 1  # if a server was claimed at all
    retries = 0  # those of them that went to another server than the first
    bytes_in = 0  # of the request's body
    failures: tuple[str, ...] = ()  # of attempts, each with its server
    failed_at: Server | None = None  # the server of the last attempt that came to nothing
    error = ""  # that ended it, in words
    # At the end, and only if somebody wants to know.
    status: int  # 499: the client left before it had all
    server: Server | None  # that answered; without an answer the one of the last attempt
    reply: Reply | None  # None: the answer is a page of ours, or there is none
    page: FieldPairs  # the fields of such a page
    bytes_out: int  # of the response's body
    ended_at: float
    ending: str  # FINISHED, or the `ending` of an error

    def __init__(self, head: RequestHead, peer: ClientInfo, body: BodySource, downstream: Downstream,
                 source: SocketAddress | None = None, destination: SocketAddress | None = None, started: float = 0.0) -> None:
        """`source` and `destination` are of the client's connection, for servers that want the PROXY header."""
        self.head = head
        self.peer = peer
        self.body = body
        self.downstream = downstream
        self.source, self.destination = source, destination
        self.started = started

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

    def note_failure(self, server: Server, phase: str, why: str) -> None:
        """An attempt at this server has failed."""
        self.failed_at = server
        self.failures += (f"{server.name}: {phase}: {why}",)
        if self.identity is not None and self.identity.trace is not None:
            self.identity.trace.end_attempt(server, phase, why)

    def end(self, now: float, bytes_out: int, error: Exception | None, reply: Reply | None, page: FieldPairs = (),
            status: int = 0) -> None:
        """The exchange is over. `error` is why it did not finish; None: it did. `status` is for an answer of neither a server nor
        an error."""
        self.ended_at, self.bytes_out, self.reply, self.page, self.ending = now, bytes_out, reply, page, FINISHED
        if reply is not None:
            self.server, self.status = reply.served_by, reply.status
        else:
            self.server, self.status = self.failed_at, status
        if error is not None:
            known = error if isinstance(error, ProxyError) else ProxyError(repr(error))
            self.ending = known.ending
            if not isinstance(known, OwnAnswer):
                self.error = f"{known.phase}: {known}"
            if reply is None or isinstance(error, ClientGone):
                self.status = known.status


Ended = Callable[[Request], None]
"""Hears of every exchange that is over, once, with its record. It stands on the way of requests: it neither waits nor raises."""


def tell_all(listeners: Sequence[Ended]) -> Ended | None:
    """One function in the place of several; None for none."""
    if len(listeners) < 2:
        return listeners[0] if listeners else None

    def ended(request: Request) -> None:
        for listener in listeners:
            listener(request)

    return ended


TrustCheck = Callable[[str], bool]
"""Whether the proxy at this address is believed."""
