"""Servers that break the rules: an error for the client, or a response that cannot be mistaken for a whole one."""
from __future__ import annotations

from .case import (
    OK, AwaitBytes, AwaitReplies, Close, Hold, Pause, ReadBody, ReadSome, Reset, Script, Write, answer, blob, case, get,
    in_chunks, post, topic,
)
from .checks import (
    All, AnyOf, Closed, Reply, Requests, Served, Status, Truncated, body, interims, reply_lacks,
)

GATEWAY = Status(500, 502)
GONE = Status(500, 502, 503, 504)
FINE = All(Status(200), body(b"ok"))
HELLO = All(Status(200), body(b"hello"))
CHUNKED = b"Transfer-Encoding: chunked"


def says(raw: bytes, *after: object) -> Script:
    """The origin takes the whole request, writes this, and closes or does what is said."""
    return (ReadBody(), Write(raw), *(after or (Close(),)))  # type: ignore[arg-type]


def chunks(raw: bytes, *after: object) -> Script:
    return says(answer(CHUNKED, body=raw), *after)


HEADS = topic(
    "broken servers",
    case("closes without a byte", "RFC 9110 15.6.3", get(), GATEWAY, origin=(ReadBody(), Close())),
    case("resets without a byte", "RFC 9110 15.6.3", get(), GATEWAY, origin=(ReadBody(), Reset())),
    case("closes inside the status line", "RFC 9112 8", get(), GATEWAY, origin=says(b"HTTP/1.1 20")),
    case("closes inside the head", "RFC 9112 8", get(), GATEWAY, origin=says(b"HTTP/1.1 200 OK\r\nContent-Len")),
    case("closes before the empty line", "RFC 9112 8", get(), GATEWAY,
         origin=says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")),
    case("says nothing", "RFC 9110 15.6.5", get(), Status(504, 502), origin=(ReadBody(), Hold())),
    case("stops inside the head", "RFC 9110 15.6.5", get(), Status(504, 502), origin=says(b"HTTP/1.1 200 OK\r\nCont", Hold())),
    case("speaks another protocol", "RFC 9112 4", get(), GATEWAY, origin=says(b"SSH-2.0-OpenSSH_9.2\r\n")),
    case("sends a page without a head", "RFC 9112 4: HTTP/0.9", get(), GATEWAY, origin=says(b"<html>hello</html>\n")),
    case("sends ICY", "RFC 9112 4", get(), GATEWAY, origin=says(b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok")),
    case("sends HTTP/2 200", "RFC 9112 4", get(), AnyOf(GATEWAY), origin=says(b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok")),
    case("sends HTTP/2.0 200", "RFC 9110 2.5", get(), GATEWAY, origin=says(OK.replace(b"1.1", b"2.0"))),
    case("sends HTTP/1.2 200", "RFC 9110 2.5: read as 1.1", get(), AnyOf(GATEWAY, FINE), origin=says(OK.replace(b"1.1", b"1.2"))),
    case("status of letters", "RFC 9112 4", get(), GATEWAY, origin=says(OK.replace(b"200", b"abc"))),
    case("status of two digits", "RFC 9112 4", get(), GATEWAY, origin=says(OK.replace(b"200", b"20"))),
    case("status of four digits", "RFC 9112 4", get(), GATEWAY, origin=says(OK.replace(b"200", b"2000"))),
    case("status 099", "RFC 9110 15: 100 to 599", get(), GATEWAY, origin=says(OK.replace(b"200", b"099"))),
    case("status line without a reason", "RFC 9112 4", get(), FINE, origin=OK.replace(b"200 OK", b"200 ")),
    case("status line without the second space", "RFC 9112 4", get(), AnyOf(GATEWAY, FINE), origin=OK.replace(b"200 OK", b"200")),
    case("status line with a control byte", "RFC 9112 4", get(), AnyOf(GATEWAY, FINE), origin=says(OK.replace(b" OK", b" O\x01K"))),
    case("status line with a bare CR", "RFC 9112 2.2", get(), AnyOf(GATEWAY, FINE), origin=says(OK.replace(b" OK", b" O\rK"))),
    case("lines that end in bare LF", "RFC 9112 2.2", get(), AnyOf(GATEWAY, FINE), origin=OK.replace(b"\r\n", b"\n")),
    case("an empty line before the status line", "RFC 9112 2.2", get(), AnyOf(GATEWAY, FINE), origin=says(b"\r\n" + OK)),
    case("a folded field", "RFC 9112 5.2: 502, or SP", get(), AnyOf(GATEWAY, FINE),
         origin=says(answer(b"Content-Length: 2", b"X-Fold: a\r\n b", body=b"ok"))),
    case("a space before the colon", "RFC 9112 5.1: MUST remove", get(), AnyOf(GATEWAY, FINE),
         origin=says(answer(b"Content-Length: 2", b"X-Space : 1", body=b"ok"))),
    case("a line without a colon", "RFC 9112 5", get(), AnyOf(GATEWAY, FINE),
         origin=says(answer(b"Content-Length: 2", b"garbage", body=b"ok"))),
    case("a bracket in a field name", "RFC 9110 5.1", get(), AnyOf(GATEWAY, FINE),
         origin=says(answer(b"Content-Length: 2", b"X(Y): 1", body=b"ok"))),
    case("a bare CR in a value", "response splitting; RFC 9110 5.5", get(), AnyOf(GATEWAY, FINE),
         origin=says(answer(b"Content-Length: 2", b"X-Value: a\rSet-Cookie: evil=1", body=b"ok"))),
    case("a NUL in a value", "RFC 9110 5.5", get(), AnyOf(GATEWAY, FINE),
         origin=says(answer(b"Content-Length: 2", b"X-Value: a\x00b", body=b"ok"))),
    case("a head of 1 MiB", "bounded memory", get(), GATEWAY,
         origin=says(answer(b"Content-Length: 2", b"X-Value: " + b"a" * (1 << 20), body=b"ok"))),
    case("twenty thousand fields", "bounded memory", get(), GATEWAY,
         origin=says(answer(b"Content-Length: 2", *[b"X-%d: 1" % n for n in range(20000)], body=b"ok"))),
    case("a head byte by byte", "TCP has no messages", get(), FINE, origin=(ReadBody(), Write(OK, 1, 0.002))),
)

FRAMES = topic(
    "broken servers",
    case("both framings", "RFC 9112 6.3", get(), AnyOf(GATEWAY, HELLO),
         origin=says(answer(b"Content-Length: 3", CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"))),
    case("two different lengths", "RFC 9112 6.3: MUST 502", get(), GATEWAY,
         origin=says(answer(b"Content-Length: 2", b"Content-Length: 3", body=b"ok!"))),
    case("the same length twice", "RFC 9110 8.6", get(), AnyOf(GATEWAY, FINE),
         origin=says(answer(b"Content-Length: 2", b"Content-Length: 2", body=b"ok"))),
    case("a list of equal lengths", "RFC 9110 8.6", get(), AnyOf(GATEWAY, FINE), origin=says(answer(b"Content-Length: 2, 2", body=b"ok"))),
    case("a list of different lengths", "RFC 9112 6.3", get(), GATEWAY, origin=says(answer(b"Content-Length: 2, 3", body=b"ok!"))),
    case("length with a plus sign", "RFC 9110 8.6", get(), GATEWAY, origin=says(answer(b"Content-Length: +2", body=b"ok"))),
    case("negative length", "RFC 9110 8.6", get(), GATEWAY, origin=says(answer(b"Content-Length: -2", body=b"ok"))),
    case("length of letters", "RFC 9110 8.6", get(), GATEWAY, origin=says(answer(b"Content-Length: two", body=b"ok"))),
    case("empty length", "RFC 9110 8.6", get(), GATEWAY, origin=says(answer(b"Content-Length:", body=b"ok"))),
    case("length over 64 bits", "RFC 9110 8.6", get(), GATEWAY,
         origin=says(answer(b"Content-Length: 18446744073709551618", body=b"ok"))),
    case("an unknown transfer coding", "RFC 9112 6.1", get(), GATEWAY, origin=says(answer(b"Transfer-Encoding: gzip", body=b"ok"))),
    case("chunked is not the final coding", "RFC 9112 6.3", get(), GATEWAY,
         origin=says(answer(b"Transfer-Encoding: chunked, gzip", body=b"2\r\nok\r\n0\r\n\r\n"))),
    case("chunked twice", "RFC 9112 6.1", get(), GATEWAY,
         origin=says(answer(b"Transfer-Encoding: chunked, chunked", body=b"2\r\nok\r\n0\r\n\r\n"))),
    case("chunked in HTTP/1.0", "RFC 9112 6.1: faulty framing", get(), AnyOf(GATEWAY, HELLO),
         origin=says(answer(CHUNKED, version=b"HTTP/1.0", body=b"5\r\nhello\r\n0\r\n\r\n"))),
    case("a bad first chunk size", "RFC 9112 7.1", get(), Truncated(), origin=chunks(b"xyz\r\nhello\r\n0\r\n\r\n")),
    case("a negative chunk size", "RFC 9112 7.1", get(), Truncated(), origin=chunks(b"-5\r\nhello\r\n0\r\n\r\n")),
    case("a chunk size over 64 bits", "RFC 9112 7.1.3", get(), Truncated(), origin=chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    case("a chunk size with a prefix", "RFC 9112 7.1", get(), Truncated(), origin=chunks(b"0x5\r\nhello\r\n0\r\n\r\n")),
    case("a bad later chunk size", "RFC 9112 7.1", get(), Truncated(), origin=chunks(b"5\r\nhello\r\nxyz\r\nhello\r\n0\r\n\r\n")),
    case("chunk data longer than its size", "RFC 9112 7.1", get(), Truncated(), origin=chunks(b"5\r\nhelloXX\r\n0\r\n\r\n")),
    case("chunk lines that end in bare LF", "RFC 9112 2.2", get(), AnyOf(HELLO, Truncated()), origin=chunks(b"5\nhello\n0\n\n")),
    case("a chunk extension", "RFC 9112 7.1.1", get(), HELLO, origin=((ReadBody(), Write(answer(
        CHUNKED, body=b"5;a=b\r\nhello\r\n0;c\r\n\r\n"))))),
    case("a trailer field", "RFC 9110 6.5", get(), HELLO, origin=(ReadBody(), Write(answer(
        CHUNKED, b"Trailer: X-T", body=b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")))),
    case("a length as trailer", "RFC 9110 6.5.1", get(), AnyOf(Truncated(), All(HELLO, Reply(
        "not passed on", lambda m: not any(name.lower() == b"content-length" for name, _ in m.trailers)))),
        origin=chunks(b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n")),
    case("closes inside its length", "RFC 9112 8", get(), Truncated(), origin=says(answer(b"Content-Length: 50", body=b"hello"))),
    case("resets inside its length", "RFC 9112 8", get(), Truncated(),
         origin=says(answer(b"Content-Length: 50", body=b"hello"), Pause(0.1), Reset())),
    case("closes inside a long body", "RFC 9112 8", get(), Truncated(),
         origin=says(answer(b"Content-Length: 900000", body=b"x" * 300000))),
    case("closes inside a chunk", "RFC 9112 8", get(), Truncated(), origin=chunks(b"ff\r\nhello")),
    case("closes between chunks", "RFC 9112 8", get(), Truncated(), origin=chunks(b"5\r\nhello\r\n")),
    case("closes inside the last chunk", "RFC 9112 8", get(), Truncated(), origin=chunks(b"5\r\nhello\r\n0\r\n")),
    case("closes inside a chunk, to HTTP/1.0", "RFC 9112 8", get(version=b"HTTP/1.0", close=False), Truncated(),
         origin=chunks(b"ff\r\nhello")),
    case("stops inside its length", "RFC 9112 8", get(), Truncated(), close_wait_s=4.5,
         origin=says(answer(b"Content-Length: 50", body=b"hello"), Hold())),
    case("stops between chunks", "RFC 9112 8", get(), Truncated(), close_wait_s=4.5,
         origin=chunks(b"5\r\nhello\r\n", Hold())),
    case("resets a body that ends with the connection", "RFC 9112 8", get(), Truncated(),
         origin=says(answer(body=b"hello"), Pause(0.1), Reset())),
    case("more than its length", "RFC 9112 6.3: the rest is not a response", get(close=False) + get(b"X-Second: 1"),
         Served(2), Reply("the first body only", lambda m: m.body == b"ok"), replies=2, alone=True,
         origin=(ReadBody(), Write(OK + b"EXTRA"))),
    case("a second response that nobody asked for", "response queue poisoning",
         (get(close=False), AwaitReplies(1), get()), Served(2), replies=2, alone=True,
         origin=((ReadBody(), Write(OK + answer(b"Content-Length: 4", b"X-Evil: 1", body=b"evil"))), (ReadBody(), Write(OK))),
         lax=False),
    case("a late second response", "response queue poisoning",
         (get(close=False), AwaitReplies(1), Pause(0.3), get()), Served(2), replies=2, alone=True,
         origin=((ReadBody(), Write(OK), Pause(0.1), Write(answer(b"Content-Length: 4", b"X-Evil: 1", body=b"evil"))),
                 (ReadBody(), Write(OK)))),
    case("a body after 204", "RFC 9112 6.3", get(close=False) + get(), Status(204), Status(200, nth=1), replies=2, alone=True,
         origin=((ReadBody(), Write(answer(status=b"204 No Content", body=b"evil"))), (ReadBody(), Write(OK)))),
    case("a body after 304", "RFC 9112 6.3", get(close=False) + get(), Status(304), Status(200, nth=1), replies=2, alone=True,
         origin=((ReadBody(), Write(answer(b"Content-Length: 4", status=b"304 Not Modified", body=b"evil"))),
                 (ReadBody(), Write(OK)))),
    case("a body after HEAD", "RFC 9112 6.3", get(method=b"HEAD", close=False) + get(), Status(200), Status(200, nth=1),
         Reply("the second body", lambda m: m.body == b"ok", 1), replies=2, methods=(b"HEAD", b"GET"), alone=True,
         origin=((ReadBody(), Write(OK)), (ReadBody(), Write(OK)))),
)

INTERIM = topic(
    "broken servers",
    case("100 before the response", "RFC 9110 15.2", get(), FINE, AnyOf(interims(100), interims()),
         origin=b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    case("103 before the response", "RFC 8297; RFC 9110 15.2: MUST forward", get(), FINE, interims(103),
         origin=b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + OK),
    case("102 twice, then 103", "RFC 9110 15.2: MUST forward", get(), FINE, interims(102, 102, 103),
         origin=b"HTTP/1.1 102 Processing\r\n\r\n" * 2 + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK),
    case("an interim response nobody knows", "RFC 9110 15.2", get(), FINE, AnyOf(interims(199), interims()),
         origin=b"HTTP/1.1 199 Odd\r\n\r\n" + OK),
    case("103 to HTTP/1.0", "RFC 9110 15.2: MUST NOT send", get(version=b"HTTP/1.0", close=False), FINE, interims(),
         origin=b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + OK),
    case("103, then the end", "RFC 9110 15.2", get(), GATEWAY, origin=says(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")),
    case("103 early, the response later", "RFC 8297", (get(), AwaitBytes(b"200 OK")), FINE, interims(103),
         origin=(ReadBody(), Write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), Pause(0.3), Write(OK))),
    case("a 200 to HEAD with a length", "RFC 9110 9.3.2", get(method=b"HEAD"), Status(200),
         Reply("length 1000", lambda m: m.all("content-length") in ([b"1000"], [])), origin=answer(b"Content-Length: 1000")),
    case("a 200 to HEAD with chunked", "RFC 9112 6.1", get(method=b"HEAD"), Status(200), origin=answer(CHUNKED)),
    case("a 204", "RFC 9110 15.3.5", get(), Status(204), reply_lacks("transfer-encoding"), origin=answer(status=b"204 No Content")),
    case("a 204 with a length", "RFC 9110 8.6: MUST NOT", get(), AnyOf(GATEWAY, All(
        Status(204), reply_lacks("content-length", "transfer-encoding"))),
        origin=says(answer(b"Content-Length: 5", status=b"204 No Content"))),
    case("a 304 with a length", "RFC 9110 15.4.5", get(), Status(304), reply_lacks("transfer-encoding"),
         origin=answer(b"Content-Length: 1000", b'ETag: "a"', status=b"304 Not Modified")),
    case("a 304 with chunked", "RFC 9112 6.1", get(), Status(304), origin=answer(CHUNKED, status=b"304 Not Modified")),
    case("a 205 with an empty body", "RFC 9110 15.3.6", get(), Status(205), origin=answer(b"Content-Length: 0", status=b"205 Reset")),
    case("a 200 of no length at all", "RFC 9112 6.3: until close", get(), HELLO, Closed(), origin=says(answer(body=b"hello"))),
    case("HTTP/1.0 until close", "RFC 9112 6.3", get(), HELLO, origin=says(answer(version=b"HTTP/1.0", body=b"hello"))),
    case("until close, to a connection that stays", "RFC 9112 6.3", (get(close=False), AwaitReplies(1), get()),
         Served(2), replies=2, origin=(says(answer(body=b"hello")), (ReadBody(), Write(OK)))),
    case("an answer before the whole request", "RFC 9110 10.1.1; RFC 9112 9.3",
         post(blob(3 << 20)), Status(413), Requests(1, 0),
         origin=(ReadSome(1), Write(answer(b"Content-Length: 4", b"Connection: close", status=b"413 Too Large", body=b"big!")),
                 ReadBody(), Close())),
    case("an answer, then a close, before the whole request", "RFC 9112 9.3",
         post(blob(3 << 20)), Status(413, 502), Requests(0),
         origin=(ReadSome(1), Write(answer(b"Content-Length: 4", b"Connection: close", status=b"413 Too Large", body=b"big!")),
                 Pause(0.2), Close())),
    case("a close inside the request's body", "RFC 9110 15.6.3", post(blob(3 << 20)), GONE, Requests(0),
         origin=(ReadSome(1), Reset())),
    case("a long chunked body with odd sizes", "RFC 9112 7.1", get(), Reply("that body", lambda m: m.body == blob(300001)),
         origin=(ReadBody(), Write(lambda: answer(CHUNKED, body=in_chunks(blob(300001), 7777))))),
)

CASES = HEADS + FRAMES + INTERIM
