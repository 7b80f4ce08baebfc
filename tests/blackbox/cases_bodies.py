"""Bodies: whole, unchanged, streamed; the 100-continue handshake."""
from __future__ import annotations

from .case import (
    OK, AwaitBytes, AwaitOrigin, AwaitReplies, Close, Pause, ReadBody, ReadSome, Script, Send, Write, answer, blob, case, chunked, get,
    in_chunks, post, topic,
)
from .checks import (
    All, AnyOf, Closed, Reply, Request, Requests, Status, body, interims, lacks, sent_body,
)

MEGABYTES = 16 << 20
EVERY_BYTE = bytes(range(256)) * 8 + b"\r\n\r\n0\r\n\r\n"
EXPECT = b"Expect: 100-continue"
FINE = Status(200)


def big(*fields: bytes, wrap: bool = False) -> Script:
    return (ReadBody(), Write(lambda: answer(*fields, body=in_chunks(blob(MEGABYTES), 65000) if wrap else blob(MEGABYTES))))


CASES = topic(
    "bodies",
    case("POST with a length", "RFC 9112 6.2", post(b"hello"), FINE, Requests(1), sent_body(b"hello")),
    case("POST with length zero", "RFC 9112 6.3", post(b""), FINE, Requests(1), sent_body(b"")),
    case("POST without any framing", "RFC 9112 6.3: no body", get(method=b"POST"), FINE, Requests(1), sent_body(b""),
         ),
    case("GET gets no framing", "RFC 9110 8.6", get(), FINE, lacks("transfer-encoding"),
         Request("no length but 0", lambda m: m.all("content-length") in ([], [b"0"]))),
    case("PUT, with a body", "RFC 9110 9.3.4", post(b"hello", method=b"PUT"), FINE, sent_body(b"hello")),
    case("DELETE with a body", "RFC 9110 9.3.5", post(b"hello", method=b"DELETE"), FINE, sent_body(b"hello")),
    case("GET with a body", "RFC 9110 9.3.1", post(b"hello", method=b"GET"), FINE, sent_body(b"hello")),
    case("every byte up", "RFC 9110 6.4", post(EVERY_BYTE), FINE, sent_body(EVERY_BYTE)),
    case("every byte up, chunked", "RFC 9110 6.4", chunked(in_chunks(EVERY_BYTE, 100)), FINE, sent_body(EVERY_BYTE)),
    case("every byte down", "RFC 9110 6.4", get(), FINE, body(EVERY_BYTE),
         origin=answer(b"Content-Length: %d" % len(EVERY_BYTE), body=EVERY_BYTE)),
    case("every byte down, chunked", "RFC 9110 6.4", get(), FINE, body(EVERY_BYTE),
         origin=answer(b"Transfer-Encoding: chunked", body=in_chunks(EVERY_BYTE, 100))),
    case("a response that looks like two", "RFC 9112 6", get(), FINE, body(OK + OK),
         origin=answer(b"Content-Length: %d" % len(OK + OK), body=OK + OK)),
    case("16 MiB up", "RFC 9112 6.2", Send(lambda: post(blob(MEGABYTES))), FINE, sent_body(lambda: blob(MEGABYTES)), methods=(b"POST",)),
    case("16 MiB up, chunked", "RFC 9112 7.1", Send(lambda: chunked(in_chunks(blob(MEGABYTES), 100000))), FINE,
         sent_body(lambda: blob(MEGABYTES)), methods=(b"POST",)),
    case("16 MiB down", "RFC 9112 6.2", get(), FINE, body(lambda: blob(MEGABYTES)), origin=big(b"Content-Length: %d" % MEGABYTES)),
    case("16 MiB down, chunked", "RFC 9112 7.1", get(), FINE, body(lambda: blob(MEGABYTES)),
         origin=big(b"Transfer-Encoding: chunked", wrap=True)),
    case("16 MiB down until close", "RFC 9112 6.3", get(), FINE, body(lambda: blob(MEGABYTES)), Closed(),
         origin=big() + (Close(),)),
    case("a body byte by byte up", "TCP has no messages", Send(post(b"hello, world"), piece=1, pause_s=0.001), FINE,
         sent_body(b"hello, world"), methods=(b"POST",)),
    case("a body byte by byte down", "TCP has no messages", get(), FINE, body(b"hello, world"),
         origin=(ReadBody(), Write(answer(b"Content-Length: 12", body=b"hello, world"), 1, 0.001))),
    case("a chunked body byte by byte down", "TCP has no messages", get(), FINE, body(b"hello, world"),
         origin=(ReadBody(), Write(answer(b"Transfer-Encoding: chunked", body=in_chunks(b"hello, world", 5)), 1, 0.001))),
    case("an empty chunked response", "RFC 9112 7.1", get(), FINE, body(b""), origin=answer(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    case("a response of length zero", "RFC 9112 6.3", get(), FINE, body(b""), origin=answer(b"Content-Length: 0")),
    case("a partial response", "RFC 9110 14", get(b"Range: bytes=0-1"), Status(206), body(b"ok"),
         origin=answer(b"Content-Length: 2", b"Content-Range: bytes 0-1/9", status=b"206 Partial Content", body=b"ok")),
    case("an upload is streamed", "RFC 9112 6: no need to hold it",
         (get(b"Content-Length: 10", method=b"POST") + b"first", AwaitOrigin(1), b"later"), FINE, sent_body(b"firstlater"),
         origin=(ReadSome(5), Pause(0.05), ReadBody(), Write(OK))),
    case("a chunked upload is streamed", "RFC 9112 7.1",
         (chunked(b"5\r\nfirst\r\n"), AwaitOrigin(1), b"5\r\nlater\r\n0\r\n\r\n"), FINE, sent_body(b"firstlater"),
         origin=(ReadSome(5), ReadBody(), Write(OK))),
    case("a download is streamed", "server-sent events",
         (get(), AwaitBytes(b"first")), FINE, body(b"firstlater"), Reply("in time", lambda m: True),
         origin=(ReadBody(), Write(answer(b"Transfer-Encoding: chunked", b"Content-Type: text/event-stream", body=b"5\r\nfirst\r\n")),
                 Pause(0.4), Write(b"5\r\nlater\r\n0\r\n\r\n"))),
    case("Expect: 100-continue", "RFC 9110 10.1.1",
         (get(b"Content-Length: 5", EXPECT, method=b"POST"), AwaitBytes(b"100 "), b"hello"), FINE, interims(100), sent_body(b"hello"),
         origin=(Write(b"HTTP/1.1 100 Continue\r\n\r\n"), ReadBody(), Write(OK))),
    case("Expect: 100-continue, an origin that does not say it", "RFC 9110 10.1.1",
         (get(b"Content-Length: 5", EXPECT, method=b"POST"), Pause(0.3), b"hello"), FINE, sent_body(b"hello")),
    case("Expect: 100-continue, a client that does not wait", "RFC 9110 10.1.1", post(b"hello", EXPECT), FINE, sent_body(b"hello")),
    case("Expect: 100-continue, chunked", "RFC 9110 10.1.1",
         (get(b"Transfer-Encoding: chunked", EXPECT, method=b"POST"), AwaitBytes(b"100 "), b"5\r\nhello\r\n0\r\n\r\n"), FINE,
         sent_body(b"hello"), origin=(Write(b"HTTP/1.1 100 Continue\r\n\r\n"), ReadBody(), Write(OK))),
    case("Expect: 100-continue in HTTP/1.0", "RFC 9110 10.1.1: MUST ignore",
         get(b"Content-Length: 5", EXPECT, method=b"POST", version=b"HTTP/1.0", close=False) + b"hello", FINE, interims(),
         sent_body(b"hello")),
    case("Expect: 100-continue, refused by the origin", "RFC 9110 10.1.1",
         (get(b"Content-Length: 5", EXPECT, method=b"POST"), AwaitReplies(1)), AnyOf(Status(401, 413), All(interims(100))),
         origin=(Write(answer(b"Content-Length: 0", b"Connection: close", status=b"401 Unauthorized")), ReadBody(), Close())),
    case("Expect: 100-continue without a body", "RFC 9110 10.1.1", get(EXPECT), FINE, Requests(1)),
)
