"""What a case is: the client's bytes, the origin's script, and what must come of them. Values only."""
from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from .checks import Check

Data = bytes | Callable[[], bytes]  # a function where the bytes are too many to keep for every case
TOKEN = b"{case}"  # stands for the case's own word, by which the origin knows it

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Send:
    """The client writes; in pieces of `piece` bytes with `pause_s` between them, or at once."""

    data: Data
    piece: int = 0
    pause_s: float = 0.0


@dataclass(frozen=True)
class Pause:
    """Time passes. Only for what is about time: most steps wait for an event instead."""

    seconds: float


@dataclass(frozen=True)
class AwaitReplies:
    """Until so many final responses are whole, or the connection ends."""

    count: int


@dataclass(frozen=True)
class AwaitBytes:
    """Until the client has these bytes somewhere in what it received."""

    data: bytes


@dataclass(frozen=True)
class AwaitOrigin:
    """Until the origin has received so many heads of this case."""

    count: int


@dataclass(frozen=True)
class AwaitOriginClosed:
    """Until the proxy has closed an origin connection that was held open for this case."""


@dataclass(frozen=True)
class Release:
    """The origin's script may go on after its `AwaitRelease`."""


@dataclass(frozen=True)
class OriginCloses:
    """The origin closes every connection it has, idle as they are (only in a case that runs alone)."""


@dataclass(frozen=True)
class HalfClose:
    """The client ends its sending side and goes on reading."""


@dataclass(frozen=True)
class Leave:
    """The client resets its connection."""


@dataclass(frozen=True)
class Reconnect:
    """The client goes on over a new connection."""


Step = (
    Send | Pause | AwaitReplies | AwaitBytes | AwaitOrigin | AwaitOriginClosed | OriginCloses | Release | HalfClose
    | Leave | Reconnect
)


@dataclass(frozen=True)
class ReadBody:
    """The origin reads the request's body to its end; asked for a 100 (RFC 9110 10.1.1) it says so first."""

    says_continue: bool = True


@dataclass(frozen=True)
class ReadSome:
    """The origin waits until so many raw bytes of the body have come, and leaves them unread."""

    count: int


@dataclass(frozen=True)
class Write:
    """The origin writes; in pieces or at once."""

    data: Data
    piece: int = 0
    pause_s: float = 0.0


@dataclass(frozen=True)
class AwaitRelease:
    """The origin waits for the client's `Release`: what it wrote before has then arrived, or the case has failed."""


@dataclass(frozen=True)
class Close:
    """The origin closes the connection in order (FIN)."""


@dataclass(frozen=True)
class Reset:
    """The origin resets the connection (RST)."""


@dataclass(frozen=True)
class Hold:
    """The origin says nothing more and waits until the proxy closes the connection."""


@dataclass(frozen=True)
class Echo:
    """After a 101: the origin sends back what it receives, until the end."""


@dataclass(frozen=True)
class IfReused:
    """What to do when the connection has carried a request before; the script goes on only on a fresh one."""

    actions: tuple[Action, ...]


Action = ReadBody | ReadSome | Write | Pause | AwaitRelease | Close | Reset | Hold | Echo | IfReused
Script = tuple[Action, ...]
ANSWER: Script = (ReadBody(), Write(OK))


@dataclass(frozen=True)
class Case:
    """One case. `scripts` answer the requests of this case in order, the last one goes on for all that follow."""

    name: str
    topic: str
    basis: str  # the RFC section or the name of the attack
    steps: tuple[Step, ...]
    expect: tuple[Check, ...]
    scripts: tuple[Script, ...] = (ANSWER,)
    replies: int = 1  # final responses to wait for, and the most there may be
    methods: tuple[bytes, ...] = (b"GET",)  # of the requests, for their responses' framing; the last goes on
    alone: bool = False  # runs while no other case does
    lax: bool = False  # the usual well-formedness checks are left out
    close_wait_s: float = 2.0  # how long the end of the connection may take once the replies are there


def case(name: str, basis: str, send: bytes | Step | tuple[bytes | Step, ...], *expect: Check,
         origin: Script | bytes | tuple[Script, ...] | None = None, **more: object) -> Callable[[str], Case]:
    """A case without its topic yet; plain bytes are a `Send`, or for the origin an answer after the whole request."""
    parts = send if isinstance(send, tuple) else (send,)
    steps = tuple(Send(part) if isinstance(part, bytes) else part for part in parts)
    first = parts[0]
    if isinstance(first, bytes) and "methods" not in more:
        more["methods"] = (first.split(b" ", 1)[0],)
    scripts: tuple[Script, ...]
    if origin is None:
        scripts = (ANSWER,)
    elif isinstance(origin, bytes):
        scripts = ((ReadBody(), Write(origin)),)
    elif origin and isinstance(origin[0], tuple):
        scripts = origin
    else:
        scripts = (cast(Script, origin),)
    return lambda topic: Case(f"{topic}: {name}", topic, basis, steps, expect, scripts, **more)  # type: ignore[arg-type]


def topic(name: str, *made: Callable[[str], Case]) -> list[Case]:
    return [make(name) for make in made]


def get(*fields: bytes, target: bytes = b"/{case}", method: bytes = b"GET", version: bytes = b"HTTP/1.1",
        host: bytes | None = b"bb.test", close: bool = True) -> bytes:
    """A request without a body; `close` asks for the connection's end, so that no outcome has to be waited for."""
    lines = [b" ".join((method, target, version))]
    lines += [b"Host: " + host] if host is not None else []
    lines += fields
    lines += [b"Connection: close"] if close else []
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(body: bytes, *fields: bytes, method: bytes = b"POST", target: bytes = b"/{case}", version: bytes = b"HTTP/1.1",
         close: bool = True, length: bool = True) -> bytes:
    """A request with a body, framed by its length unless `length` is off (the fields then say how)."""
    framing = (b"Content-Length: %d" % len(body),) if length else ()
    return get(*framing, *fields, method=method, target=target, version=version, close=close) + body


def chunked(body: bytes, *fields: bytes, method: bytes = b"POST", close: bool = True) -> bytes:
    """A request whose chunked body is given as raw bytes, right or wrong."""
    return get(b"Transfer-Encoding: chunked", *fields, method=method, close=close) + body


def answer(*fields: bytes, body: bytes = b"", status: bytes = b"200 OK", version: bytes = b"HTTP/1.1") -> bytes:
    """A response head of exactly these fields, and a body."""
    return b"\r\n".join((version + b" " + status, *fields, b"", b"")) + body


@functools.cache
def blob(count: int) -> bytes:
    """The same incompressible bytes each time."""
    return random.Random(count).randbytes(count)


def in_chunks(body: bytes, size: int) -> bytes:
    """Chunked coding of a body in chunks of one size (RFC 9112 7.1)."""
    parts = [b"%x\r\n%b\r\n" % (len(piece), piece)
             for piece in (body[at: at + size] for at in range(0, len(body), size))]
    return b"".join(parts) + b"0\r\n\r\n"
