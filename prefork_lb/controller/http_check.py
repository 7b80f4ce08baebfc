"""A check over HTTP: one request, and whether the answer is as it should be."""
from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from prefork_lb.controller.check_words import ranges, short
from prefork_lb.errors import BadResponse, ConnectFailed, ResponseTimeout, StaleConnection, TruncatedBody
from prefork_lb.net.sockets import SocketStream
from prefork_lb.net.stream import StreamClosed, StreamTimeout, Watched
from prefork_lb.proxy.inbound import NO_CLIENT, BodyReader, HeadReader
from prefork_lb.wire import grammar
from prefork_lb.wire.framing import BY_CLOSE, BY_LENGTH, Framing, response_framing
from prefork_lb.wire.head import HeadLimits, ResponseHead
from prefork_lb.wire.parse import parse_response

BODY_LIMIT_BYTES = 64 * 1024
USER_AGENT = "prefork_lb-check"

# A body that is not judged is read only to keep the connection. A new connection is cheaper than more time than this.
_DRAIN_S = 0.1
_CHARSET = re.compile(rb"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS

Connect = Callable[[float], SocketStream]
"""Makes a connection within some seconds. Raises UpstreamError, OutOfDescriptors."""


class CheckRequest(NamedTuple):
    """The request of a check. A field of `headers` takes the place of the check's own field of that name."""

    method: str
    path: str
    host: str
    headers: tuple[tuple[str, str], ...]

    def block(self) -> bytes:
        """The request's head. Raises ValueError when the method, path or a field is not valid."""
        fields = {"Host": self.host, "User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if self.method not in ("GET", "HEAD"):
            fields["Content-Length"] = "0"
        own = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1".encode()]
        if not grammar.request_line.fullmatch(lines[0]):
            raise ValueError(f"not a request line: {short(lines[0].decode())}")
        for name, value in [*((name, value) for name, value in fields.items() if name.lower() not in own), *self.headers]:
            if not (grammar.token.fullmatch(name.encode()) and grammar.value.fullmatch(value.encode())):
                raise ValueError(f"not a field: {short(f'{name}: {value}')}")
            lines.append(f"{name}: {value}".encode())
        return b"\r\n".join([*lines, b"", b""])


class HTTPCheck:
    """Checks one server again and again, one check at a time, over a connection that it keeps."""

    def __init__(self, request: CheckRequest, statuses: frozenset[int], text: str, pattern: str, limits: HeadLimits,
                 connect: Connect) -> None:
        """Raises ValueError or re.error when the check cannot be made."""
        self._block = request.block()
        self._method = request.method.encode()
        self._statuses = statuses
        self._text = text
        self._pattern = re.compile(pattern) if pattern else None
        self._limits = limits
        self._parse = partial(parse_response, limits=limits)
        self._connect = connect
        self._kept: SocketStream | None = None

    def close(self) -> None:
        """End the connection that was kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def make(self, deadline: float) -> tuple[bool, str]:
        """Whether the server's answer is good, and the reason. Raises UpstreamError, OutOfDescriptors."""
        stream, self._kept = self._kept, None
        if stream is not None:
            try:
                if stream.is_quiet():
                    return self._ask(stream, True, deadline)
                stream.close()
            except StaleConnection:
                pass  # an idle connection that the server closed at this moment says nothing about the server
        return self._ask(self._connect(deadline - time.monotonic()), False, deadline)

    def _ask(self, stream: SocketStream, reused: bool, deadline: float) -> tuple[bool, str]:
        answer = _Answer(stream, deadline)
        try:
            head, reader = self._head(stream, answer, reused, deadline)
            framing = response_framing(head, self._method)
            body = BodyReader(answer, framing, reader.rest, self._limits, deadline - time.monotonic(), NO_CLIENT)
            verdict = self._judge(head, body, framing, answer)
            if head.is_persistent and framing.kind is not BY_CLOSE and body.is_received and not body.excess:
                self._kept = stream
            return verdict
        finally:
            if self._kept is not stream:
                stream.close()

    def _head(self, stream: SocketStream, answer: _Answer, reused: bool, deadline: float) -> tuple[ResponseHead, HeadReader]:
        left_s = deadline - time.monotonic()
        try:
            if left_s <= 0:
                raise StreamTimeout
            stream.send(self._block, left_s)
        except StreamTimeout as exc:
            raise ResponseTimeout("no time left for the request") from exc
        except StreamClosed as exc:
            kind = StaleConnection if reused else ConnectFailed
            raise kind(f"connection lost while the request was sent: {exc}") from exc
        reader = HeadReader(answer, self._limits, reused, self._parse)
        while (head := reader.read(NO_CLIENT, left_s, time.monotonic)).status < 200:
            reader.relay(head, NO_CLIENT)
        return head, reader

    def _judge(self, head: ResponseHead, body: BodyReader, framing: Framing, answer: _Answer) -> tuple[bool, str]:
        if head.status not in self._statuses:
            _drain(body, framing, answer)
            return False, f"status {head.status}, expected {ranges(self._statuses)}"
        if not self._text and self._pattern is None:
            _drain(body, framing, answer)
            return True, str(head.status)
        text = _decode(_read(body), head)
        if self._text and self._text not in text:
            return False, f"text {short(self._text)} not found"
        if self._pattern is not None and not self._pattern.search(text):
            return False, f"pattern {short(self._pattern.pattern)} not found"
        return True, str(head.status)


class _Answer:
    """A server's stream. Every wait for it ends when the check's time is over.

    A timeout alone bounds one read: a server that sends a byte a second never exceeds it.
    """

    def __init__(self, stream: SocketStream, deadline: float) -> None:
        self.deadline = deadline
        self._stream = stream

    def receive(self, limit: int, timeout_s: float) -> bytes:
        left_s = min(timeout_s, self.deadline - time.monotonic())
        if left_s <= 0:
            raise StreamTimeout
        return self._stream.receive(limit, left_s)

    def receive_now(self, limit: int) -> bytes | None:
        return self._stream.receive_now(limit)

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        return self.receive(limit, timeout_s)


def _read(body: BodyReader) -> bytes:
    """The body, as far as it is looked at."""
    pieces: list[bytes] = []
    size = 0
    while size < BODY_LIMIT_BYTES and (piece := body.read()):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)[:BODY_LIMIT_BYTES]


def _drain(body: BodyReader, framing: Framing, answer: _Answer) -> None:
    """Receive a body that is not judged, if that takes a moment only, so that the connection can be kept. Raises TruncatedBody
    when the body is broken."""
    if framing.kind is BY_LENGTH and framing.length > BODY_LIMIT_BYTES:
        return
    answer.deadline = min(answer.deadline, time.monotonic() + _DRAIN_S)
    try:
        _read(body)
    except TruncatedBody as exc:
        if not isinstance(exc.__cause__, StreamTimeout):
            raise


def _decode(body: bytes, head: ResponseHead) -> str:
    coding = b", ".join(head.index.get(b"content-encoding", ())).lower()
    if coding in (b"gzip", b"x-gzip", b"deflate"):  # not asked for; some servers send nothing else
        try:
            body = zlib.decompressobj(_ZLIB_OR_GZIP).decompress(body, BODY_LIMIT_BYTES)
        except zlib.error as exc:
            raise BadResponse(f"the body is not {coding.decode()}: {exc}") from exc
    # Without a charset it is UTF-8, as today's servers mean it, and not what RFC 2616 said.
    named = _CHARSET.search(b", ".join(head.index.get(b"content-type", ())))
    try:
        return body.decode(named[1].decode() if named else "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")
