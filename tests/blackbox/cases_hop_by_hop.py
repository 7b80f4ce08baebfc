"""What belongs to one connection stays on it, both ways; what a client says about itself is not believed."""
from __future__ import annotations

from .case import OK, AwaitBytes, Close, Echo, ReadBody, Send, Write, answer, case, get, post, topic
from .checks import (
    All,
    AnyOf,
    Check,
    Refused,
    Reply,
    Request,
    Requests,
    Status,
    body,
    has,
    lacks,
    reply_has,
    reply_lacks,
    sent_body,
)
from .wire import Message

ASKED = Status(200)


def last_forwarded(message: Message) -> bool:
    return message.tokens("x-forwarded-for")[-1:] == [b"127.0.0.1"]


PEER_LAST: Check = Request("X-Forwarded-For ends with the real peer", last_forwarded)


def no_token(*tokens: bytes) -> Request:
    return Request(f"Connection without {tokens}", lambda m: not set(tokens) & set(m.tokens("connection")))


def replying(*fields: bytes) -> bytes:
    return answer(b"Content-Length: 2", *fields, body=b"ok")


REQUESTS = topic(
    "hop-by-hop",
    case("an ordinary field passes", "RFC 9110 7.6", get(b"X-A: 1"), ASKED, has("x-a", b"1")),
    case("a nominated field stays here", "RFC 9110 7.6.1: MUST remove",
         get(b"Connection: X-Hop", b"X-Hop: 1", b"X-End: 2"), ASKED, lacks("x-hop"), no_token(b"x-hop"),
         has("x-end", b"2")),
    case("a nominated field in another case", "RFC 9110 7.6.1", get(b"CONNECTION: x-hOP", b"X-Hop: 1"), ASKED,
         lacks("x-hop")),
    case("nominated twice in a list", "RFC 9110 7.6.1",
         get(b"Connection: X-One ,\tX-Two,,", b"X-One: 1", b"X-Two: 1"), ASKED,
         lacks("x-one", "x-two")),
    case("nominated in a second Connection field", "RFC 9110 7.6.1",
         get(b"Connection: X-One", b"X-One: 1", b"Connection: X-Two", b"X-Two: 1"), ASKED, lacks("x-one", "x-two")),
    case("a nominated field that comes twice", "RFC 9110 7.6.1", get(b"X-Hop: 1", b"Connection: X-Hop", b"X-Hop: 2"),
         ASKED,
         lacks("x-hop")),
    case("a nominated field before its Connection", "RFC 9110 7.6.1", get(b"X-Hop: 1", b"Connection: close, X-Hop"),
         ASKED,
         lacks("x-hop")),
    case("Connection names Host", "hop-by-hop abuse", get(b"Connection: Host"),
         AnyOf(Refused(400), All(ASKED, has("host", b"bb.test")))),
    case("Connection names X-Forwarded-For", "hop-by-hop abuse", get(b"Connection: X-Forwarded-For"), ASKED, PEER_LAST),
    case("Connection names X-Forwarded-For and sends one", "hop-by-hop abuse",
         get(b"Connection: X-Forwarded-For", b"X-Forwarded-For: 6.6.6.6"), ASKED, PEER_LAST),
    case("Keep-Alive stays here", "RFC 9110 7.6.1", get(b"Keep-Alive: timeout=5"), ASKED, lacks("keep-alive")),
    case("Proxy-Connection stays here", "RFC 9110 7.6.1", get(b"Proxy-Connection: keep-alive"), ASKED,
         lacks("proxy-connection")),
    case("TE stays here", "RFC 9110 10.1.4", get(b"TE: gzip;q=0.5", b"Connection: TE"), ASKED,
         Request("no TE but trailers", lambda m: m.tokens("te") in ([], [b"trailers"]))),
    case("TE without its Connection option", "RFC 9110 10.1.4", get(b"TE: gzip"), ASKED,
         Request("no TE but trailers", lambda m: m.tokens("te") in ([], [b"trailers"]))),
    case("an upgrade that the origin declines", "RFC 9110 7.8",
         get(b"Connection: Upgrade", b"Upgrade: foo/1", close=False),
         ASKED, body(b"ok"), close_wait_s=0.0),
    case("Upgrade that is not nominated", "RFC 9110 7.8", get(b"Upgrade: foo/1"), ASKED, lacks("upgrade")),
    case("Upgrade from HTTP/1.0", "RFC 9110 7.8: MUST ignore",
         get(b"Connection: Upgrade", b"Upgrade: foo/1", version=b"HTTP/1.0", close=False), ASKED, lacks("upgrade")),
    case("a WebSocket tunnel", "RFC 6455 1.3; RFC 9110 7.8",
         (get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
              b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", close=False),
          AwaitBytes(b"\r\n\r\n"), Send(b"\x81\x05hello"), AwaitBytes(b"\x81\x05hello")),
         Status(101), Reply("the echo", lambda m: m.body == b"\x81\x05hello"),
         Reply("Upgrade told", lambda m: m.tokens("upgrade") == [b"websocket"]),
         Reply("Upgrade nominated", lambda m: b"upgrade" in m.tokens("connection")),
         origin=(Write(answer(b"Upgrade: websocket", b"Connection: Upgrade",
                              b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                              status=b"101 Switching Protocols")), Echo()), close_wait_s=0.0),
    case("a 101 that nobody asked for", "RFC 9110 15.2.2", get(), Status(500, 502),
         origin=(ReadBody(), Write(answer(b"Upgrade: evil", b"Connection: Upgrade", status=b"101 Switching Protocols")),
                 Close())),
    case("X-Forwarded-For is added", "common practice", get(), ASKED, PEER_LAST),
    case("X-Forwarded-For of a stranger", "spoofing", get(b"X-Forwarded-For: 6.6.6.6"), ASKED, PEER_LAST),
    case("two X-Forwarded-For of a stranger", "spoofing",
         get(b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 7.7.7.7"), ASKED, PEER_LAST),
    case("X-Forwarded-For in mixed case", "spoofing", get(b"x-fORWARDED-fOR: 6.6.6.6"), ASKED, PEER_LAST),
    case("X-Forwarded-Proto of a stranger", "spoofing", get(b"X-Forwarded-Proto: https"), ASKED,
         Request("not https", lambda m: b"https" not in m.tokens("x-forwarded-proto"))),
    case("Forwarded of a stranger", "RFC 7239 8.1; spoofing", get(b"Forwarded: for=6.6.6.6;proto=https"), ASKED,
         Request("none, or the real peer last",
                 lambda m: not m.all("forwarded") or b"127.0.0.1" in m.tokens("forwarded")[-1])),
    case("X_Forwarded_For with underscores", "spoofing; CGI names", get(b"X_Forwarded_For: 6.6.6.6"),
         AnyOf(Refused(400), All(ASKED, PEER_LAST, lacks("x_forwarded_for")))),
    case("a Via field is added", "RFC 9110 7.6.3: MUST", get(), ASKED, has("via")),
    case("an earlier Via is kept", "RFC 9110 7.6.3", get(b"Via: 1.0 fred"), ASKED,
         Request("1.0 fred first", lambda m: m.tokens("via")[:1] == [b"1.0 fred"])),
    case("Max-Forwards: 0 on OPTIONS", "RFC 9110 7.6.2: MUST NOT forward",
         get(b"Max-Forwards: 0", method=b"OPTIONS"), Requests(0), Status(200, 204, 400, 403, 405, 501)),
    case("Max-Forwards: 0 on TRACE", "RFC 9110 7.6.2: MUST NOT forward",
         get(b"Max-Forwards: 0", method=b"TRACE"), Requests(0), Status(200, 400, 403, 405, 501)),
    case("Max-Forwards: 5 on OPTIONS", "RFC 9110 7.6.2: count down", get(b"Max-Forwards: 5", method=b"OPTIONS"),
         ASKED, has("max-forwards", b"4")),
    case("an expectation nobody knows", "RFC 9110 10.1.1: 417, or pass on", post(b"hello", b"Expect: magic"),
         AnyOf(Refused(400, 417), All(ASKED, sent_body(b"hello")))),
    case("Authorization passes", "RFC 9110 11.6.2", get(b"Authorization: Basic YTpi"), ASKED,
         has("authorization", b"Basic YTpi")),
    case("conditional fields pass", "RFC 9110 13", get(b'If-None-Match: "a", W/"b"', b"If-Match: *"), ASKED,
         has("if-none-match", b'"a", W/"b"'), has("if-match", b"*")),
    case("Accept-Encoding passes", "RFC 9110 12.5.3", get(b"Accept-Encoding: br;q=1.0, gzip;q=0.8, *;q=0.1"), ASKED,
         has("accept-encoding", b"br;q=1.0, gzip;q=0.8, *;q=0.1")),
)

REPLIES = topic(
    "hop-by-hop",
    case("a nominated response field stays there", "RFC 9110 7.6.1",
         get(), ASKED, reply_lacks("x-hop"), reply_has("x-end", b"2"), body(b"ok"),
         origin=replying(b"Connection: X-Hop", b"X-Hop: 1", b"X-End: 2")),
    case("the origin's Keep-Alive stays there", "RFC 9110 7.6.1", get(), ASKED,
         Reply("no timeout=77", lambda m: not any(b"77" in one for one in m.all("keep-alive"))),
         origin=replying(b"Keep-Alive: timeout=77", b"Connection: keep-alive")),
    case("the origin's Proxy-Connection stays there", "RFC 9110 7.6.1", get(), ASKED, reply_lacks("proxy-connection"),
         origin=replying(b"Proxy-Connection: keep-alive")),
    case("the origin's Connection: close is its own", "RFC 9112 9.6",
         get(close=False) + get(), ASKED, Status(200, nth=1), replies=2,
         origin=(ReadBody(), Write(replying(b"Connection: close")), Close())),
    case("the origin's Upgrade offer stays there", "RFC 9110 7.8", get(), ASKED, reply_lacks("upgrade"),
         origin=replying(b"Upgrade: h2c", b"Connection: Upgrade")),
    case("two Set-Cookie fields stay two", "RFC 6265 3", get(), ASKED,
         reply_has("set-cookie", b"a=1; Path=/", b"b=2, 3; Path=/"),
         origin=replying(b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=2, 3; Path=/")),
    case("repeated response fields stay in order", "RFC 9110 5.3", get(), ASKED,
         Reply("1 then 2", lambda m: b",".join(m.all("x-value")).replace(b" ", b"") == b"1,2"),
         origin=replying(b"X-Value: 1", b"X-Other: a", b"X-Value: 2")),
    case("Date and ETag pass", "RFC 9110 6.6.1", get(), ASKED, reply_has("etag", b'W/"x"'),
         reply_has("date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
         origin=replying(b"Date: Sun, 06 Nov 1994 08:49:37 GMT", b'ETag: W/"x"')),
    case("Location passes unchanged", "RFC 9110 10.2.2", get(), Status(302),
         reply_has("location", b"/x?a=%2F&b=\xc3\xa9"),
         origin=answer(b"Content-Length: 0", b"Location: /x?a=%2F&b=\xc3\xa9", status=b"302 Found")),
    case("Content-Encoding passes unchanged", "RFC 9110 8.4", get(b"Accept-Encoding: gzip"), ASKED,
         reply_has("content-encoding", b"gzip"), body(b"\x1f\x8b\x08"),
         origin=answer(b"Content-Length: 3", b"Content-Encoding: gzip", body=b"\x1f\x8b\x08")),
    case("401 with its challenge", "RFC 9110 11.6.1", get(), Status(401),
         reply_has("www-authenticate", b'Basic realm="a, b"'),
         origin=answer(b"Content-Length: 0", b'WWW-Authenticate: Basic realm="a, b"', status=b"401 Unauthorized")),
    case("an error page of the origin", "RFC 9110 15.6.1", get(), Status(500), body(b"down"),
         origin=answer(b"Content-Length: 4", status=b"500 Internal Server Error", body=b"down")),
    case("a status code nobody knows", "RFC 9110 15", get(), Status(499), body(b"ok"),
         origin=answer(b"Content-Length: 2", status=b"499 Odd", body=b"ok")),
    case("the origin's own reason", "RFC 9112 4", get(), ASKED, origin=OK.replace(b"OK", b"All f\xfcr you", 1)),
)

CASES = REQUESTS + REPLIES
