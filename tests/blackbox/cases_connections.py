"""Connections: kept, closed, pipelined, abandoned; and the origin's, which go stale."""
from __future__ import annotations

from .case import (
    OK, AwaitBytes, AwaitOrigin, AwaitOriginClosed, AwaitReplies, Close, HalfClose, Hold, IfReused, Leave, Pause, ReadBody, Reconnect,
    Reset, Script, Send, Write, answer, case, get, in_chunks, post, topic,
)
from .checks import (
    All, AnyOf, Closed, Heads, OriginClosed, Refused, Reply, Requests, Served, Status, body,
)

KEPT = get(close=False)
STALE_CLOSE: Script = (IfReused((Close(),)), ReadBody(), Write(OK))
STALE_RESET: Script = (IfReused((Reset(),)), ReadBody(), Write(OK))
CLOSED_WHEN_IDLE: tuple[Script, ...] = ((ReadBody(), Write(OK), Pause(0.05), Close()), (ReadBody(), Write(OK)))
NUMBERED: tuple[Script, ...] = tuple(
    (ReadBody(), Write(answer(b"Content-Length: 2", body=b"r%d" % n))) for n in range(1, 10))


def in_order(count: int) -> Reply:
    return Reply(f"{count} answers in order", lambda m: m.body == b"r%d" % count, count - 1)


CASES = topic(
    "connections",
    case("two requests one after the other", "RFC 9112 9.3", (KEPT, AwaitReplies(1), get()), Served(2), replies=2),
    case("twenty requests one after the other", "RFC 9112 9.3",
         tuple(step for n in range(20) for step in (Send(KEPT), AwaitReplies(n + 1))), Served(20), replies=20, close_wait_s=0.0),
    case("three pipelined requests", "RFC 9112 9.3.2: answered in order", KEPT + KEPT + get(),
         AnyOf(All(Served(3), in_order(3), in_order(2), in_order(1)), All(Served(1), Served(3), in_order(1))), replies=3, origin=NUMBERED),
    case("pipelined requests of several methods", "RFC 9112 9.3.2",
         get(method=b"HEAD", close=False) + post(b"hello", close=False) + get(), Served(3), replies=3,
         methods=(b"HEAD", b"POST", b"GET")),
    case("a request cut in two, the next behind it", "RFC 9112 9.3.2", ((KEPT + get())[:50], Pause(0.1), (KEPT + get())[50:]),
         Served(2), replies=2),
    case("Connection: close is honoured", "RFC 9112 9.6", get(), Status(200), Closed(),
         Reply("says close", lambda m: b"close" in m.tokens("connection"))),
    case("Connection: close in another case and list", "RFC 9110 7.6.1", get(b"Connection: x-foo, CLOSE", close=False), Status(200),
         Closed()),
    case("nothing after Connection: close", "RFC 9112 9.6: MUST NOT process", get() + get(), Status(200), Closed(), Heads(1)),
    case("HTTP/1.0 closes", "RFC 9112 9.3", get(version=b"HTTP/1.0", close=False), Status(200), Closed()),
    case("HTTP/1.0 with keep-alive", "RFC 9112 C.2.2", get(b"Connection: keep-alive", version=b"HTTP/1.0", close=False),
         Status(200), AnyOf(Closed(), Reply("says keep-alive", lambda m: b"keep-alive" in m.tokens("connection"))), close_wait_s=0.5),
    case("HTTP/1.0 and a chunked response", "RFC 9112 6.1: MUST NOT send", get(version=b"HTTP/1.0", close=False), Status(200),
         Reply("not chunked", lambda m: m.framing != "chunked" and m.body == b"hello"), Closed(),
         origin=answer(b"Transfer-Encoding: chunked", body=in_chunks(b"hello", 3))),
    case("HTTP/1.0 and a response until close", "RFC 9112 6.3", get(version=b"HTTP/1.0", close=False), Status(200), body(b"hello"),
         Closed(), origin=(ReadBody(), Write(answer(body=b"hello")), Close())),
    case("keep-alive after a 404 of the origin", "RFC 9112 9.3", (KEPT, AwaitReplies(1), get()), Served(2, 404), replies=2,
         origin=answer(b"Content-Length: 4", status=b"404 Not Found", body=b"none")),
    case("keep-alive after HEAD", "RFC 9112 9.3", (get(method=b"HEAD", close=False), AwaitReplies(1), get()), Served(2), replies=2,
         methods=(b"HEAD", b"GET"), origin=((ReadBody(), Write(answer(b"Content-Length: 9"))), (ReadBody(), Write(OK)))),
    case("keep-alive after 304", "RFC 9112 9.3", (KEPT, AwaitReplies(1), get()), Served(2, 304), replies=2,
         origin=answer(b"Content-Length: 9", status=b"304 Not Modified")),
    case("keep-alive after a chunked response", "RFC 9112 9.3", (KEPT, AwaitReplies(1), get()), Served(2), replies=2,
         origin=answer(b"Transfer-Encoding: chunked", body=in_chunks(b"hello", 2))),
    case("an empty line between two requests", "RFC 9112 2.2", (post(b"hello", close=False) + b"\r\n", AwaitReplies(1), get()),
         Served(2), replies=2, methods=(b"POST", b"GET")),
    case("nothing after a refused request", "RFC 9112 9.6", get(host=b"a b", close=False) + get(), Refused(400)),
    case("the client ends its side after a GET", "RFC 9112 9.6", (KEPT, HalfClose()), AnyOf(Status(200), Closed()),
         origin=(ReadBody(), Pause(0.2), Write(OK))),
    case("the client ends its side after a POST", "RFC 9112 9.6", (post(b"hello"), HalfClose()), Status(200), Requests(1)),
    case("a connection without a request", "RFC 9112 9.5", (b"", HalfClose()), Closed(), Requests(0), replies=0, methods=(b"GET",)),
    case("the client leaves while the origin thinks", "RFC 9112 9.5", (KEPT, AwaitOrigin(1), Leave(), AwaitOriginClosed()),
         OriginClosed(), replies=0, origin=(ReadBody(), Hold())),
    case("the client leaves inside a response", "RFC 9112 9.5",
         (KEPT, AwaitBytes(b"xxxx"), Leave(), AwaitOriginClosed()), OriginClosed(), replies=1, lax=True,
         origin=(ReadBody(), Write(answer(b"Content-Length: 900000000", body=b"x" * 100000)), Write(b"x" * 1000, 1, 0.002), Hold())),
    case("the client leaves inside its request", "RFC 9112 8",
         (post(b"", b"Content-Length: 300000", length=False, close=False) + b"x" * 100000, Pause(0.2), Leave(), Pause(0.3)), Requests(0),
         replies=0),
    case("the origin closed its idle connection", "RFC 9112 9.5", (KEPT, AwaitReplies(1), Pause(0.3), get()), Served(2), replies=2,
         origin=CLOSED_WHEN_IDLE, alone=True),
    case("the origin closed its idle connection, then POST", "RFC 9112 9.5",
         (KEPT, AwaitReplies(1), Pause(0.3), post(b"hello")), Served(2), Requests(2, 1), replies=2, methods=(b"GET", b"POST"),
         origin=CLOSED_WHEN_IDLE, alone=True),
    case("the origin closes as GET arrives", "RFC 9110 9.2.2; RFC 9112 9.3.1: retry", (KEPT, AwaitReplies(1), get()), Served(2), replies=2,
         origin=STALE_CLOSE, alone=True),
    case("the origin resets as GET arrives", "RFC 9112 9.3.1: retry", (KEPT, AwaitReplies(1), get()), Served(2), replies=2,
         origin=STALE_RESET, alone=True),
    case("the origin closes as PUT arrives", "RFC 9110 9.2.2: idempotent", (KEPT, AwaitReplies(1), post(b"hello", method=b"PUT")),
         Status(200), Status(200, 500, 502, 503, nth=1), replies=2, origin=STALE_CLOSE, alone=True, methods=(b"GET", b"PUT")),
    case("the origin closes as POST arrives", "RFC 9110 9.2.2: no automatic retry",
         (KEPT, AwaitReplies(1), post(b"hello")), Status(200), AnyOf(Served(1), Status(500, 502, 503, nth=1), Heads(2)), Heads(2), replies=2,
         origin=STALE_CLOSE, alone=True, methods=(b"GET", b"POST")),
    case("the origin closes after every response", "RFC 9112 9.6",
         tuple(step for n in range(4) for step in (Send(KEPT), AwaitReplies(n + 1))) + (get(),), Served(5), replies=5,
         origin=(ReadBody(), Write(answer(b"Content-Length: 2", b"Connection: close", body=b"ok")), Close())),
    case("the origin speaks HTTP/1.0 without keep-alive", "RFC 9112 9.3", (KEPT, AwaitReplies(1), get()), Served(2), replies=2,
         origin=(ReadBody(), Write(answer(b"Content-Length: 2", version=b"HTTP/1.0", body=b"ok")), Close())),
    case("a new connection after a closed one", "RFC 9112 9.6", (get(), AwaitReplies(1), Reconnect(), get()), Status(200),
         Status(200, nth=1), replies=2),
)
