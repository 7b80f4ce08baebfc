"""Chunked request bodies: what RFC 9112 7.1 allows, and what looks as if it did."""
from __future__ import annotations

from .case import HalfClose, Leave, Pause, Send, case, chunked, get, post, topic
from .checks import (
    All,
    AnyOf,
    Heads,
    Refused,
    Request,
    Requests,
    Served,
    Status,
    sent_body,
)

NEXT = b"GET /{case}/smuggled HTTP/1.1\r\nHost: bb.test\r\n\r\n"
HELLO = All(Status(200), Requests(1), sent_body(b"hello"))
# The head may have gone on before the bad chunk came; then the gateway may also tell of the server it cut off.
BROKEN = Refused(400, 413, 500, 502)
TRAILERS = Refused(400, 413, 431, 500, 502)


def only(raw: bytes) -> bytes:
    return chunked(raw)


CASES = topic(
    "framing",
    case("a chunked body", "RFC 9112 7.1", only(b"5\r\nhello\r\n0\r\n\r\n"), HELLO),
    case("several chunks", "RFC 9112 7.1", only(b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n"), HELLO),
    case("an empty chunked body", "RFC 9112 7.1", only(b"0\r\n\r\n"), Status(200), Requests(1), sent_body(b"")),
    case("chunk sizes in both cases of hex", "RFC 9112 7.1",
         only(b"A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n"), Status(200), sent_body(b"01234567890123456789a")),
    case("chunk size with leading zeros", "RFC 9112 7.1", only(b"0000005\r\nhello\r\n000\r\n\r\n"),
         AnyOf(BROKEN, HELLO)),
    case("a chunk extension", "RFC 9112 7.1.1: ignore", only(b"5;a=b\r\nhello\r\n0;c\r\n\r\n"), HELLO),
    case("a quoted chunk extension", "RFC 9112 7.1.1", only(b'5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n'), HELLO),
    case("blanks before a chunk extension", "RFC 9112 7.1.1: BWS", only(b"5 ;a=b\r\nhello\r\n0\r\n\r\n"),
         AnyOf(BROKEN, HELLO)),
    case("bare LF in a chunk extension", "TERM.EXT", only(b"5;\nxx\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("bare CR in a chunk extension", "EXT.TERM", only(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), AnyOf(BROKEN, HELLO)),
    case("NUL in a chunk extension", "RFC 9112 7.1.1", only(b"5;a\x00b\r\nhello\r\n0\r\n\r\n"), AnyOf(BROKEN, HELLO)),
    case("a chunk extension of 100 KiB", "RFC 9112 7.1.1: limit it",
         only(b"5;a=" + b"b" * 102400 + b"\r\nhello\r\n0\r\n\r\n"),
         BROKEN),
    case("space after the chunk size", "RFC 9112 7.1", only(b"5 \r\nhello\r\n0\r\n\r\n"), AnyOf(BROKEN, HELLO)),
    case("space before the chunk size", "RFC 9112 7.1", only(b" 5\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size 0x5", "RFC 9112 7.1.3", only(b"0x5\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size +5", "RFC 9112 7.1; int() takes it", only(b"+5\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size -5", "RFC 9112 7.1", only(b"-5\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size 0_5", "RFC 9112 7.1; int() takes it", only(b"0_5\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size 5g", "RFC 9112 7.1", only(b"5g\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("an empty chunk size", "RFC 9112 7.1", only(b"\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("an empty chunk size with an extension", "RFC 9112 7.1", only(b";a=b\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size over 64 bits", "RFC 9112 7.1.3: anticipate overflow",
         only(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size over 32 bits", "RFC 9112 7.1.3", only(b"100000005\r\nhello\r\n0\r\n\r\n"), Requests(0),
         replies=1, close_wait_s=0.0),
    case("chunk size of -1 in 64 bits", "RFC 9112 7.1.3", only(b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("chunk size line ends in bare LF", "RFC 9112 2.2", only(b"5\nhello\r\n0\r\n\r\n"), AnyOf(BROKEN, HELLO)),
    case("chunk data ends in bare LF", "RFC 9112 7.1", only(b"5\r\nhello\n0\r\n\r\n"), AnyOf(BROKEN, HELLO)),
    case("chunk data ends in CR and another byte", "RFC 9112 7.1", only(b"5\r\nhello\rX0\r\n\r\n"), BROKEN),
    case("chunk data without its line end", "RFC 9112 7.1", only(b"5\r\nhello0\r\n\r\n"), BROKEN),
    case("chunk data longer than its size", "RFC 9112 7.1", only(b"5\r\nhelloX\r\n0\r\n\r\n"), BROKEN),
    case("chunk data shorter than its size", "RFC 9112 7.1", only(b"6\r\nhello\r\n0\r\n\r\n"), BROKEN),
    case("the last chunk ends in bare LF", "RFC 9112 7.1", only(b"5\r\nhello\r\n0\n\n"), AnyOf(BROKEN, HELLO)),
    case("a trailer field", "RFC 9110 6.5", chunked(b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n", b"Trailer: X-Trailer"),
         HELLO, Request("not among the head's fields", lambda m: not m.all("x-trailer"))),
    case("framing fields as trailers", "RFC 9110 6.5.1: never merged",
         chunked(b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: gzip\r\n\r\n"),
         AnyOf(BROKEN, All(HELLO, Request(
             "not passed on", lambda m: not any(name.lower() in (b"content-length", b"transfer-encoding")
                                                for name, _ in m.trailers))))),
    case("Host as a trailer", "RFC 9110 6.5.1", only(b"5\r\nhello\r\n0\r\nHost: evil.test\r\n\r\n"),
         AnyOf(BROKEN, All(HELLO, Request("not merged", lambda m: m.all("host") == [b"bb.test"])))),
    case("X-Forwarded-For as a trailer", "RFC 9110 6.5.1",
         only(b"5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),
         AnyOf(BROKEN, All(HELLO, Request("not believed",
         lambda m: b"6.6.6.6" not in b"".join(m.all("x-forwarded-for")))))),
    case("a trailer line without a colon", "RFC 9112 7.1.2", only(b"5\r\nhello\r\n0\r\ngarbage\r\n\r\n"),
         AnyOf(BROKEN, HELLO)),
    case("a trailer line that ends in bare LF", "RFC 9112 2.2", only(b"5\r\nhello\r\n0\r\nX-A: 1\nX-B: 2\r\n\r\n"),
         AnyOf(BROKEN, HELLO)),
    case("a folded trailer", "RFC 9112 5.2", only(b"5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n"), AnyOf(BROKEN, HELLO)),
    case("trailers of 2 MiB", "RFC 6585 5: bounded",
         only(b"5\r\nhello\r\n0\r\n" + b"X-Trailer: aaaaaaaaaaaaaaaaaaaa\r\n" * 65536
                                                         + b"\r\n"), AnyOf(TRAILERS, HELLO)),
    case("a request after the last chunk", "RFC 9112 9.3.2: that is pipelining",
         chunked(b"5\r\nhello\r\n0\r\n\r\n", close=False) + get(), Served(2), replies=2, methods=(b"POST", b"GET")),
    case("a request after the trailers", "RFC 9112 9.3.2",
         chunked(b"5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n", close=False) + get(), Served(2), replies=2,
         methods=(b"POST", b"GET")),
    case("a request after a broken chunk", "RFC 9112 7.1: nothing after it is trusted",
         chunked(b"5\r\nhelloX\r\n0\r\n\r\n", close=False) + NEXT, BROKEN, Heads(1)),
    case("a chunked body byte by byte", "TCP has no messages",
         Send(only(b"5;a=b\r\nhello\r\n3\r\n\r\n!\r\n0\r\nX-A: 1\r\n\r\n"), piece=1, pause_s=0.001),
         Status(200), sent_body(b"hello\r\n!")),
    case("four thousand chunks of a byte", "RFC 9112 7.1", only(b"1\r\nx\r\n" * 4000 + b"0\r\n\r\n"), Status(200),
         sent_body(b"x" * 4000)),
    case("the client ends inside a chunk", "RFC 9112 8: incomplete", (only(b"ff\r\nhello"), HalfClose()), Requests(0),
         replies=1, close_wait_s=1.0),
    case("the client ends before the last chunk", "RFC 9112 8", (only(b"5\r\nhello\r\n"), HalfClose()), Requests(0)),
    case("the client ends inside the last chunk", "RFC 9112 8", (only(b"5\r\nhello\r\n0\r\n"), HalfClose()),
         Requests(0)),
    case("the client ends before its length", "RFC 9112 8",
         (post(b"", b"Content-Length: 50", length=False) + b"hello", HalfClose()), Requests(0)),
    case("the client resets before its length", "RFC 9112 8",
         (post(b"", b"Content-Length: 50", length=False) + b"hello", Pause(0.1), Leave()), Requests(0)),
    case("the body waits for nothing", "RFC 9112 6",
         (post(b"", b"Content-Length: 5", length=False), Pause(0.2), b"hello"),
         HELLO),
)
