"""A strict HTTP/1.1 reader of its own, so that no proxy is judged by its own parser.

Messages are pulled from a socket: heads, bodies by length, chunks or close, trailers. Whatever breaks RFC 9112 is
kept as a line in `problems`; what cannot be read on from there raises `Malformed`.
"""
from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

Field = tuple[bytes, bytes]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_VCHAR = rb"[\x21-\x7e\x80-\xff]"
_FIELD = re.compile(rb"(%b):[ \t]*((?:%b(?:[ \t\x21-\x7e\x80-\xff]*%b)?)?)[ \t]*" % (TOKEN, _VCHAR, _VCHAR))
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e\x80-\xff]+) (HTTP/1\.[01])")
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9]{2}) ([ \t\x21-\x7e\x80-\xff]*)")
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,15})((?:[ \t]*;[^\r\n\x00]*)?)")
HEAD_LIMIT = 1 << 20
SEEN_LIMIT = 1 << 16
CHUNK_LINE_LIMIT = 1 << 18


class Ended(Exception):
    """The peer closed or reset the connection; `reset` tells which, `partial` what had come of the piece asked for."""

    def __init__(self, reset: bool, partial: bytes = b"") -> None:
        super().__init__("reset" if reset else "end of stream")
        self.reset = reset
        self.partial = partial


class Malformed(Exception):
    """Bytes after which no message boundary is known."""


@dataclass
class Message:
    """One message as far as it was read. `complete` is whether its end was seen by its own framing."""

    raw_head: bytes = b""
    start: tuple[bytes, ...] = ()
    fields: list[Field] = field(default_factory=list)
    framing: str = "none"  # none, length, chunked, close
    body: bytes = b""
    raw_body: bytes = b""
    trailers: list[Field] = field(default_factory=list)
    extensions: list[bytes] = field(default_factory=list)
    complete: bool = False
    problems: list[str] = field(default_factory=list)
    interims: list[Message] = field(default_factory=list)

    def all(self, name: str) -> list[bytes]:
        """Every value of a field, in order; names compare without case."""
        wanted = name.lower().encode()
        return [value for key, value in self.fields if key.lower() == wanted]

    def tokens(self, name: str) -> list[bytes]:
        """The lower-case members of a comma list field, over all its lines."""
        members = b",".join(self.all(name)).lower().split(b",")
        return [member.strip() for member in members if member.strip()]

    @property
    def method(self) -> bytes:
        return self.start[0] if self.start else b""

    @property
    def target(self) -> bytes:
        return self.start[1] if len(self.start) > 1 else b""

    @property
    def status(self) -> int:
        return int(self.start[1]) if len(self.start) > 1 else 0


class Source:
    """Buffered reading from a socket whose own timeout is the deadline of a single wait."""

    def __init__(self, sock: socket.socket, on_data: Callable[[], None] = lambda: None) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._on_data = on_data
        self.seen = bytearray()  # the first bytes that came, whatever became of them

    def _more(self) -> None:
        try:
            data = self._sock.recv(262144)
        except TimeoutError:
            raise
        except OSError:
            raise Ended(True, self.take_all()) from None
        if not data:
            raise Ended(False, self.take_all())
        self._buffer += data
        if len(self.seen) < SEEN_LIMIT:
            self.seen += data[:SEEN_LIMIT]
        self._on_data()

    def wait_for(self, count: int) -> None:
        """Until so many bytes lie unread."""
        while len(self._buffer) < count:
            try:
                self._more()
            except Ended as ended:
                self._buffer += ended.partial
                raise

    def take_all(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def head(self) -> bytes:
        """Bytes through the first empty line; bare LF ends lines too, so that a proxy that lets it through is seen."""
        searched = 0
        while (end := _HEAD_END.search(self._buffer, max(0, searched - 3))) is None:
            if len(self._buffer) > HEAD_LIMIT:
                raise Malformed("no end of head")
            searched = len(self._buffer)
            self._more()
        data = bytes(self._buffer[: end.end()])
        del self._buffer[: end.end()]
        return data

    def line(self) -> bytes:
        """A line with its LF."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > CHUNK_LINE_LIMIT:
                raise Malformed("no end of line")
            self._more()
        data = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return data

    def up_to(self, count: int) -> bytes:
        """At least one and at most `count` bytes."""
        if not self._buffer:
            self._more()
        data = bytes(self._buffer[:count])
        del self._buffer[: len(data)]
        return data


def parse_fields(lines: list[bytes], problems: list[str]) -> list[Field]:
    """Field lines without their ends (RFC 9112 5); the broken ones become problems."""
    fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            problems.append(f"field line {line[:80]!r}")
        else:
            fields.append((match[1], match[2]))
    return fields


def _split_head(raw: bytes, problems: list[str]) -> list[bytes]:
    if raw.count(b"\n") != raw.count(b"\r\n") or raw.count(b"\r") != raw.count(b"\r\n"):
        problems.append("bare CR or LF in the head")
    return [line.rstrip(b"\r") for line in raw.split(b"\n")][:-2]


def _length(message: Message) -> int | None:
    values = message.all("content-length")
    if not values:
        return None
    if len(values) > 1:
        message.problems.append("several Content-Length fields")
    if not re.fullmatch(rb"[0-9]{1,18}", values[0]):
        message.problems.append(f"Content-Length {values[0][:40]!r}")
        raise Malformed("unusable Content-Length")
    return int(values[0])


def _coding(message: Message) -> bool:
    """Whether the message is chunked; any other coding is a problem, for nobody here asked for one."""
    values = message.all("transfer-encoding")
    if not values:
        return False
    if [value.lower() for value in values] != [b"chunked"]:
        message.problems.append(f"Transfer-Encoding {values!r}")
    if message.all("content-length"):
        message.problems.append("both Content-Length and Transfer-Encoding")
    return message.tokens("transfer-encoding")[-1:] == [b"chunked"]


def read_request_head(source: Source, message: Message) -> int:
    """Fill in a request's head and framing; the answer is its Content-Length, or 0."""
    message.raw_head = source.head()
    lines = _split_head(message.raw_head, message.problems)
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        message.problems.append(f"request line {lines[0][:80]!r}")
        message.start = tuple(lines[0].split(b" ", 2))
    else:
        message.start = (match[1], match[2], match[3])
    message.fields = parse_fields(lines[1:], message.problems)
    if len(message.all("host")) != 1:
        message.problems.append(f"{len(message.all('host'))} Host fields")
    if _coding(message):
        message.framing = "chunked"
        return 0
    length = _length(message)
    message.framing = "none" if length is None else "length"
    return length or 0


def read_body(source: Source, message: Message, length: int) -> None:
    """Read the body by the message's framing; `message.body` grows meanwhile, `complete` comes last."""
    if message.framing == "chunked":
        _read_chunks(source, message)
    elif message.framing == "close":
        _read_to_close(source, message)
    else:
        pieces: list[bytes] = []
        try:
            while length:
                pieces.append(source.up_to(length))
                length -= len(pieces[-1])
        finally:
            message.body = message.raw_body = b"".join(pieces)
    message.complete = True


def _read_to_close(source: Source, message: Message) -> None:
    pieces: list[bytes] = []
    try:
        while True:
            pieces.append(source.up_to(1 << 20))
    except Ended as ended:
        if ended.reset:
            raise
    finally:
        message.body = b"".join(pieces)


def _read_chunks(source: Source, message: Message) -> None:
    """RFC 9112 7.1; a line that ends in a bare LF is malformed here."""
    raw: list[bytes] = []
    body: list[bytes] = []
    try:
        while True:
            raw.append(source.line())
            match = _CHUNK_LINE.fullmatch(raw[-1][:-2]) if raw[-1].endswith(b"\r\n") else None
            if match is None:
                raise Malformed(f"chunk line {raw[-1][:40]!r}")
            if match[2]:
                message.extensions.append(match[2])
            left = int(match[1], 16)
            if not left:
                break
            while left:
                raw.append(source.up_to(left))
                body.append(raw[-1])
                left -= len(raw[-1])
            raw.append(source.line())
            if raw[-1] != b"\r\n":
                raise Malformed("no CRLF after the chunk")
        lines = []
        while True:
            raw.append(source.line())
            if not raw[-1].endswith(b"\r\n"):
                raise Malformed("trailer line without CRLF")
            if raw[-1] == b"\r\n":
                break
            lines.append(raw[-1][:-2])
        message.trailers = parse_fields(lines, message.problems)
    finally:
        message.body, message.raw_body = b"".join(body), b"".join(raw)


def read_response_head(source: Source, message: Message, method: bytes) -> int:
    """Fill in a response's head and framing (RFC 9112 6.3); interim responses are told by their status."""
    message.raw_head = source.head()
    lines = _split_head(message.raw_head, message.problems)
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise Malformed(f"status line {lines[0][:80]!r}")
    message.start = (match[1], match[2], match[3])
    message.fields = parse_fields(lines[1:], message.problems)
    status = message.status
    if status < 200 or status == 204 or (method == b"CONNECT" and status < 300):
        if message.all("transfer-encoding") or (message.all("content-length") and status != 204):
            message.problems.append(f"framing fields in a {status}")
        return 0
    chunked, length = _coding(message), _length(message)
    if method == b"HEAD" or status == 304:
        return 0
    message.framing = "chunked" if chunked else "close" if length is None else "length"
    return length or 0
