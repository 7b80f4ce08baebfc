"""One attempt: one lease, and what comes of it."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from prefork_lb.clock import Clock
from prefork_lb.errors import BadResponse, SendTimeout, StaleConnection
from prefork_lb.net.background import Aside, in_a_thread
from prefork_lb.net.dial import Dial
from prefork_lb.net.sockets import wait_any
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout, WaitAny
from prefork_lb.proxy.inbound import BodyReader, HeadReader, ResponseParser
from prefork_lb.proxy.outbound import EMPTY, OutboundBody
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.proxy.tracing import Identities
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.server import Server
from prefork_lb.wire import proxy_protocol
from prefork_lb.wire.framing import BY_LENGTH, response_framing
from prefork_lb.wire.head import HeadLimits, ResponseHead


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    connect: float
    response: float  # until the response head
    idle: float  # between two reads, or writes, of a body


@dataclass(frozen=True, slots=True)
class AttemptSettings:
    """What every attempt goes by."""

    timeouts: Timeouts
    limits: HeadLimits
    pseudonym: bytes  # of this proxy in Via
    clock: Clock
    parse: ResponseParser
    dial: Dial
    sleep: Callable[[float], None] = time.sleep
    wait_any: WaitAny = wait_any
    aside: Aside = in_a_thread
    collected_bytes: int = 0  # of a request's body, before a server is claimed
    collects_chunked: bool = False  # chunked bodies as well
    identities: Identities | None = None  # names requests; None: they have no names
    tells_times: bool = False  # clients get Server-Timing


def attempt(lease: Lease, request: Request, block: bytes, body: OutboundBody, fresh: bool, settings: AttemptSettings) -> Reply:
    """Send the request to the lease's server and receive the head of its response; the reply then owns the lease.

    With `fresh` no kept-alive connection is used. Raises UpstreamError, or DownstreamError for what the client did; the lease has
    ended then.
    """
    try:
        reader, early = begin(lease, request, block, body, fresh, settings)
        return finish(lease, request, reader, early, settings)
    except BaseException as exc:
        lease.end_with(exc)
        raise


def begin(lease: Lease, request: Request, block: bytes, body: OutboundBody, fresh: bool, settings: AttemptSettings,
          ) -> tuple[HeadReader, ResponseHead | None]:
    """The first half of an attempt: send the request. There may be a final response before all of it is out."""
    server, identity = lease.server, request.identity
    if identity is not None and identity.trace is not None:
        block = identity.trace.begin_attempt(server, block)
    stream = None if fresh else server.idle.take()
    reused = stream is not None
    if stream is None:
        stream = _connect(server, request, settings)
    lease.stream = stream
    reader = HeadReader(stream, settings.limits, reused, settings.parse, bool(request.upgrade))
    early = None
    if body is EMPTY:
        try:
            stream.send(block, settings.timeouts.idle)
        except StreamTimeout as exc:
            raise _took_nothing(settings) from exc
        except StreamClosed as exc:
            early = _last_words(reader, request, settings, exc)
    else:
        early = _send(stream, reader, request, block, body, settings)
    return reader, early


def finish(lease: Lease, request: Request, reader: HeadReader, early: ResponseHead | None, settings: AttemptSettings) -> Reply:
    """The second half: receive the head of the response."""
    stream = lease.stream
    assert stream is not None
    head = early or reader.read_final(request.downstream, settings.timeouts.response, settings.clock)
    if head.status >= 429:
        lease.note_status(head.status, _retry_after_s(head))
    framing = response_framing(head, request.head.method)
    data = reader.rest
    contents: BodyReader | None = None
    if head.status != 101 and (framing.kind is not BY_LENGTH or len(data) != framing.length):
        contents = BodyReader(stream, framing, data, settings.limits, settings.timeouts.idle, request.downstream)
    reply = Reply(head, framing, contents, data, lease, early is None, settings.pseudonym)
    lease.keep()
    return reply


def _retry_after_s(head: ResponseHead) -> float:
    """What Retry-After says, if it is a number of seconds (RFC 9110 10.2.3); dates are rare, and need clocks that agree."""
    values = head.index.get(b"retry-after", ())
    return float(values[0]) if len(values) == 1 and len(values[0]) < 10 and values[0].isdigit() else 0.0


def _connect(server: Server, request: Request, settings: AttemptSettings) -> Stream:
    begun = settings.clock()
    try:
        return settings.dial(server.address, settings.timeouts.connect, server.tls, _preamble(server, request))
    finally:
        request.connect_s += settings.clock() - begun


def _preamble(server: Server, request: Request) -> bytes:
    if not server.proxy_protocol:
        return b""
    return proxy_protocol.proxy_header(server.proxy_protocol, request.source, request.destination)


def _send(stream: Stream, reader: HeadReader, request: Request, block: bytes, body: OutboundBody,
          settings: AttemptSettings) -> ResponseHead | None:
    """Send head and body. Returns the head of a final response that came before all was sent (RFC 9112 9.3: a server may
    answer early, and the rest of the body is of no use then), else None."""
    timeout_s = settings.timeouts.idle
    try:
        stream.send(block + body.first if body.first else block, timeout_s)
        piece = b""
        while piece or not body.ended:
            # With a piece at hand the server may have answered before it is out; without, before the client sent more.
            if reader.rest:
                answered = True  # behind an interim response: received already, no wait would tell
            elif piece:
                piece = piece[stream.send_unless_answered(piece, timeout_s):]
                answered = bool(piece)
            else:
                answered = not body.wait(stream, timeout_s)
                piece = b"" if answered else body.next_piece()
            if answered:
                head = reader.read(request.downstream, settings.timeouts.response, settings.clock)
                if head.status >= 200:
                    return head
                reader.relay(head, request.downstream)
    except StreamTimeout as exc:
        raise _took_nothing(settings) from exc
    except StreamClosed as exc:
        return _last_words(reader, request, settings, exc)
    return None


def _took_nothing(settings: AttemptSettings) -> SendTimeout:
    return SendTimeout(f"the server took no byte of the request for {settings.timeouts.idle:g} s")


def _last_words(reader: HeadReader, request: Request, settings: AttemptSettings, cause: StreamClosed) -> ResponseHead:
    """What a server answered before it hung up, as servers do with a body that they do not want."""
    try:
        return reader.read_final(request.downstream, settings.timeouts.response, settings.clock)
    except (StaleConnection, BadResponse) as nothing:
        raise type(nothing)(f"connection lost while the request was sent: {cause}") from nothing
