"""The response as it comes from a server: heads, interim ones too, and the body by its framing."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from prefork_lb.clock import Clock
from prefork_lb.errors import BadResponse, ClientGone, ResponseTimeout, StaleConnection, TruncatedBody
from prefork_lb.net.stream import ReceiveStream, StreamClosed, StreamTimeout, Watched
from prefork_lb.proxy.response_fields import interim_fields
from prefork_lb.wire.chunked import ChunkedDecoder
from prefork_lb.wire.framing import BY_CHUNKS, BY_CLOSE, BY_LENGTH, BY_NOTHING, Framing
from prefork_lb.wire.head import Fields, HeadLimits, ResponseHead
from prefork_lb.wire.memo import Memo
from prefork_lb.wire.parse import head_end, kept_bytes, parse_response

ResponseParser = Callable[[bytes], ResponseHead]
"""From a whole head to its values, as `parse_response` does; raises BadResponse. Callers share the result; none may change it."""

Move = Callable[[ReceiveStream, int, float, Watched], tuple[int, bytes] | None]
"""Moves what a stream gives next to the client: stream, the most bytes, seconds until the first one, the client.

Returns how many bytes that were, and those that the client has not taken; (0, b"") when the stream has ended, None when the
client has left. Raises StreamTimeout and StreamClosed, of the stream.
"""

_HEAD_BYTES: Final = 64 * 1024
RESPONSE_PIECE_BYTES: Final = 128 * 1024  # of a response's body, received at a time
# Interim responses to one request. Each has the whole timeout: without a bound a server could go on for ever.
_MOST_INTERIM: Final = 64
_CLOSED: Final = "connection closed in the middle of the body"
_LEFT: Final = "the client left in the middle of the response"


def response_parser(limits: HeadLimits) -> ResponseParser:
    """Parses whole heads; those that come again it remembers, so nobody may change one. It raises BadResponse."""
    return Memo[bytes, ResponseHead](lambda block: parse_response(block, limits), kept_bytes)


class Downstream(Watched, Protocol):
    """What the engine asks of the client's connection while it works."""

    def relay(self, head: ResponseHead) -> None:
        """Pass an interim response (1xx) on. Raises ClientGone."""


class _NoClient:
    """The downstream of a request that this host makes itself: it never leaves, and gets no interim responses."""

    waiting: object = None

    def is_gone(self) -> bool:
        return False

    def relay(self, head: ResponseHead) -> None:
        pass


NO_CLIENT: Final = _NoClient()


class HeadReader:
    """Reads the heads of one response from a server's stream."""

    __slots__ = ("_interim", "_limits", "_may_switch", "_parse", "_reused", "_stream", "rest")

    def __init__(self, stream: ReceiveStream, limits: HeadLimits, reused: bool, parse: ResponseParser,
                 may_switch: bool = False) -> None:
        """`reused` tells that the connection has served an exchange before, `may_switch` that the request had an Upgrade."""
        self._stream = stream
        self._limits = limits
        self._parse = parse
        self._reused = reused
        self._may_switch = may_switch
        self.rest = b""  # what was received behind the last head
        self._interim = 0

    def read_final(self, downstream: Downstream, timeout_s: float, clock: Clock) -> ResponseHead:
        """The final response's head, or that of 101 to a request with an Upgrade; interim ones before it are relayed.

        `timeout_s` is for each head. Raises StaleConnection, BadResponse, ResponseTimeout, ClientGone.
        """
        while True:
            head = self.read(downstream, timeout_s, clock)
            if head.status >= 200 or (head.status == 101 and self._may_switch):
                return head
            self.relay(head, downstream)

    def relay(self, head: ResponseHead, downstream: Downstream) -> None:
        """Pass an interim response on. Raises BadResponse for one that cannot be."""
        self._interim += 1
        if head.status == 101:
            # RFC 9110 7.8: never without an Upgrade in the request.
            raise BadResponse("101 Switching Protocols without an Upgrade in the request")
        if self._interim > _MOST_INTERIM:
            raise BadResponse(f"more than {_MOST_INTERIM} interim responses")
        downstream.relay(ResponseHead(head.status, head.reason, head.minor, interim_fields(head)))

    def read(self, downstream: Downstream, timeout_s: float, clock: Clock) -> ResponseHead:
        """The next head. Raises as `read_final`."""
        deadline = clock() + timeout_s
        buffer = self.rest
        if not buffer:
            buffer = self.rest = self._receive(timeout_s, downstream, timeout_s)
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            end = self._read_on(downstream, timeout_s, deadline, clock)
            buffer = self.rest
        if end == len(buffer):
            self.rest = b""
        else:
            buffer, self.rest = buffer[:end], buffer[end:]
        return self._parse(buffer)

    def _read_on(self, downstream: Downstream, timeout_s: float, deadline: float, clock: Clock) -> int:
        """Receive until the buffer has a whole head; where that ends."""
        seen = 0
        while (end := head_end(self.rest, BadResponse, seen)) < 0:
            seen = len(self.rest)
            if seen > self._limits.head_bytes:
                raise BadResponse(f"the head has more than {self._limits.head_bytes} bytes")
            self.rest += self._receive(deadline - clock(), downstream, timeout_s)
        return end

    def _receive(self, left_s: float, downstream: Downstream, timeout_s: float) -> bytes:
        try:
            if left_s <= 0:
                raise StreamTimeout
            data = self._stream.receive_or(_HEAD_BYTES, left_s, downstream)
        except StreamTimeout as exc:
            raise ResponseTimeout(f"no response head within {timeout_s:g} s") from exc
        except StreamClosed as exc:
            raise self._ended(f"connection lost before the response: {exc}") from exc
        if data is None:
            raise ClientGone("the client left before the response")
        if not data:
            raise self._ended("connection closed before the response" + (
                f" head was whole, which began with {self.rest[:40]!r}" if self.rest else ""))
        return data

    def _ended(self, what: str) -> StaleConnection | BadResponse:
        if self._reused and not self.rest and not self._interim:
            return StaleConnection(what)
        return BadResponse(what)


class BodyReader:
    """Reads one response's body from a server's stream.

    `is_received` turns true with the last byte that came from the server, which `read` may still have to give out.
    """

    __slots__ = ("_decoder", "_idle_timeout_s", "_kind", "_left", "_ready", "_stream", "_watched", "excess", "is_received")

    def __init__(self, stream: ReceiveStream, framing: Framing, rest: bytes, limits: HeadLimits, idle_timeout_s: float,
                 watched: Watched) -> None:
        """`rest` is what was received behind the head; `watched` is the client, who may leave.

        Raises TruncatedBody when the rest is malformed already.
        """
        self._stream = stream
        self._watched = watched
        self._kind = framing.kind
        self._left = framing.length
        self._decoder = ChunkedDecoder(TruncatedBody, limits) if framing.kind is BY_CHUNKS else None
        self._idle_timeout_s = idle_timeout_s
        self.is_received = False
        self.excess = False  # bytes behind the response's end: the connection is out of step
        if framing.kind is BY_NOTHING or (framing.kind is BY_LENGTH and not framing.length):
            self._ready = b""
            self._end(bool(rest))
        else:
            self._ready = self._unframe(rest) if rest else b""

    @property
    def trailers(self) -> Fields:
        """The trailer fields, once all is received."""
        return self._decoder.trailers if self._decoder else []

    @property
    def left_bytes(self) -> int | None:
        """Bytes that are still to come; None when that is not known."""
        return self._left if self._kind is BY_LENGTH else None

    @property
    def is_ready(self) -> bool:
        """Whether `read` need not wait."""
        return bool(self._ready) or self.is_received

    def read(self, limit: int = RESPONSE_PIECE_BYTES) -> bytes:
        """The next data, empty at the end; at most `limit` bytes are received for it.

        Raises TruncatedBody when the body cannot be had whole, ClientGone when the client left while the server paused.
        """
        while not self._ready and not self.is_received:
            self._ready = self._unframe(self._receive(limit))
        data, self._ready = self._ready, b""
        return data

    def pass_on(self, move: Move) -> tuple[int, bytes]:
        """Like `read`, but `move` takes the data; see there. The body has a length, and `read` has nothing left to give out."""
        try:
            moved = move(self._stream, self._left, self._idle_timeout_s, self._watched)
        except (StreamTimeout, StreamClosed) as exc:
            raise self._broken(exc) from exc
        if moved is None:
            raise ClientGone(_LEFT)
        count = moved[0]
        if not count:
            raise TruncatedBody(_CLOSED)
        self._left -= count
        if not self._left:
            self._end(False)
        return moved

    def take(self, limit: int, wait_s: float = 0.0) -> bytes:
        """Data that has come, or comes within `wait_s`; empty when there is none, or at the end. Raises TruncatedBody."""
        data: bytes | None = None
        if not self._ready and not self.is_received:
            limit = self._bounded(limit)
            try:
                data = self._stream.receive(limit, wait_s) if wait_s else self._stream.receive_now(limit)
            except StreamTimeout:
                return b""
            except StreamClosed as exc:
                raise self._broken(exc) from exc
            if data is None:
                return b""
            self._ready = self._unframe(self._not_ended(data))
        data, self._ready = self._ready, b""
        return data

    def _unframe(self, data: bytes) -> bytes:
        if self._decoder is not None:
            data = self._decoder.decode(data)
            if self._decoder.done:
                self._end(bool(self._decoder.excess))
        elif self._kind is BY_LENGTH:
            excess = len(data) > self._left
            if excess:
                data = data[:self._left]
            self._left -= len(data)
            if self._left == 0:
                self._end(excess)
        elif not data:
            self._end(False)
        return data

    def _end(self, excess: bool) -> None:
        self.is_received = True
        self.excess = excess

    def _receive(self, limit: int) -> bytes:
        try:
            data = self._stream.receive_or(self._bounded(limit), self._idle_timeout_s, self._watched)
        except (StreamTimeout, StreamClosed) as exc:
            raise self._broken(exc) from exc
        if data is None:
            raise ClientGone(_LEFT)
        return self._not_ended(data)

    def _bounded(self, limit: int) -> int:
        if self._kind is BY_LENGTH:
            return min(limit, self._left)  # what comes behind the body is seen when the connection is used again
        return limit if self._decoder is None else min(limit, self._decoder.receive_bytes)

    def _not_ended(self, data: bytes) -> bytes:
        if not data and self._kind is not BY_CLOSE:
            raise TruncatedBody(_CLOSED)
        return data

    def _broken(self, exc: StreamTimeout | StreamClosed) -> TruncatedBody:
        if isinstance(exc, StreamTimeout):
            return TruncatedBody(f"no byte of the body for {self._idle_timeout_s:g} s")
        return TruncatedBody(f"connection lost in the middle of the body: {exc}")
