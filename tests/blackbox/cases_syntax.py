"""Request heads: lines, targets, Host, field names and values, limits."""
from __future__ import annotations

from .case import HalfClose, Send, case, get, topic
from .checks import (
    All,
    AnyOf,
    Closed,
    Malformed,
    Refused,
    Request,
    Requests,
    Status,
    has,
    lacks,
    target,
)

SEEN_CLEAN = All(Status(200), Requests(1))
BAD = Refused(400)
LIMITS = Refused(400, 413, 414, 431)


def value(name: str, *allowed: bytes) -> Request:
    return Request(f"{name} among {allowed}", lambda m: m.all(name) in [[one] for one in allowed])


def line(raw: bytes) -> bytes:
    """A request with this raw request line."""
    return raw + b"\r\nHost: bb.test\r\nX-Case: {case}\r\nConnection: close\r\n\r\n"


LINES = topic(
    "syntax",
    case("a plain request", "RFC 9112 3", get(), SEEN_CLEAN, target(b"/{case}"), has("host", b"bb.test")),
    case("lower-case method", "RFC 9110 9.1: methods are case-sensitive", get(method=b"get"),
         AnyOf(Refused(400, 405, 501), All(Requests(1), Request("get", lambda m: m.method == b"get")))),
    case("unknown method", "RFC 9110 9.1", get(method=b"BREW"),
         AnyOf(Refused(400, 405, 501), All(Status(200), Request("BREW", lambda m: m.method == b"BREW")))),
    case("method with a parenthesis", "RFC 9110 5.6.2: a token", line(b"GE(T /{case} HTTP/1.1"),
         Refused(400, 405, 501)),
    case("no method", "RFC 9112 3", line(b" /{case} HTTP/1.1"), BAD),
    case("two spaces in the request line", "RFC 9112 3: refuse or read as one",
         line(b"GET  /{case} HTTP/1.1"), AnyOf(BAD, SEEN_CLEAN)),
    case("tab in the request line", "RFC 9112 3", line(b"GET\t/{case}\tHTTP/1.1"), AnyOf(BAD, SEEN_CLEAN)),
    case("space before the method", "RFC 9112 3", line(b" GET /{case} HTTP/1.1"), AnyOf(BAD, SEEN_CLEAN)),
    case("space after the version", "RFC 9112 3", line(b"GET /{case} HTTP/1.1 "), AnyOf(BAD, SEEN_CLEAN)),
    case("an empty line before the request", "RFC 9112 2.2: ignore at least one", b"\r\n" + get(), SEEN_CLEAN),
    case("HTTP/0.9", "RFC 9112 2.3: no version", b"GET /{case}\r\n", AnyOf(Refused(400, 505), Malformed()), Requests(0),
         lax=True),
    case("HTTP/0.9 by name", "RFC 9112 2.3", line(b"GET /{case} HTTP/0.9"), Refused(400, 505)),
    case("HTTP/1.2", "RFC 9110 2.5: a higher minor version is read as 1.1",
         line(b"GET /{case} HTTP/1.2"), AnyOf(Refused(400, 505), SEEN_CLEAN)),
    case("HTTP/2.0", "RFC 9110 15.6.6", line(b"GET /{case} HTTP/2.0"), Refused(400, 505)),
    case("HTTP/1.10", "RFC 9112 2.3: one digit each", line(b"GET /{case} HTTP/1.10"), Refused(400, 505)),
    case("HTTP/01.1", "RFC 9112 2.3", line(b"GET /{case} HTTP/01.1"), Refused(400, 505)),
    case("http/1.1 in lower case", "RFC 9112 2.3: case-sensitive", line(b"GET /{case} http/1.1"), Refused(400, 505)),
    case("HTTPS/1.1", "RFC 9112 2.3", line(b"GET /{case} HTTPS/1.1"), Refused(400, 505)),
    case("a comma in the version", "RFC 9112 2.3", line(b"GET /{case} HTTP/1,1"), Refused(400, 505)),
    case("space in the target", "RFC 9112 3: refuse", line(b"GET /{case}/a b HTTP/1.1"), BAD),
    case("NUL in the target", "RFC 3986 2", line(b"GET /{case}/\x00 HTTP/1.1"), BAD),
    case("control byte in the target", "RFC 3986 2", line(b"GET /{case}/\x01 HTTP/1.1"), BAD),
    case("DEL in the target", "RFC 3986 2", line(b"GET /{case}/\x7f HTTP/1.1"), BAD),
    case("bare CR in the target", "RFC 9112 2.2", line(b"GET /{case}/\rX HTTP/1.1"), BAD),
    case("high byte in the target", "RFC 3986 2: encode or refuse", line(b"GET /{case}/\xff HTTP/1.1"),
         AnyOf(BAD, All(Status(200), target(b"/{case}/\xff", b"/{case}/%FF", b"/{case}/%ff")))),
    case("fragment in the target", "RFC 9112 3.2: not part of it", line(b"GET /{case}#frag HTTP/1.1"),
         AnyOf(BAD, All(Status(200), Request("no fragment", lambda m: b"#" not in m.target)))),
    case("target without a slash", "RFC 9112 3.2", line(b"GET {case} HTTP/1.1"), BAD),
    case("authority-form for GET", "RFC 9112 3.2.3: CONNECT only", line(b"GET bb.test:80 HTTP/1.1"), BAD),
    case("asterisk-form for GET", "RFC 9112 3.2.4: OPTIONS only", line(b"GET * HTTP/1.1"), BAD),
    case("asterisk-form for OPTIONS", "RFC 9112 3.2.4", line(b"OPTIONS * HTTP/1.1"),
         AnyOf(All(Status(200), target(b"*", b"/")), All(Status(200, 204, 400, 404, 405, 501), Requests(0)))),
    case("CONNECT", "RFC 9110 9.3.6: not for a gateway", line(b"CONNECT bb.test:80 HTTP/1.1"),
         Refused(400, 403, 404, 405, 501)),
    case("CONNECT with a path", "RFC 9112 3.2.3", line(b"CONNECT /{case} HTTP/1.1"), Refused(400, 403, 404, 405, 501)),
    case("TRACE", "RFC 9110 9.3.8", get(b"Cookie: secret=1", method=b"TRACE"),
         AnyOf(Refused(400, 403, 405, 501), All(Status(200), Requests(1)))),
    case("path passed on unchanged", "RFC 9110 7.7", line(b"GET /{case}//a/./b/..;x=1/c HTTP/1.1"),
         AnyOf(BAD, All(Status(200), target(b"/{case}//a/./b/..;x=1/c")))),
    case("encoded slash and dots passed on unchanged", "RFC 9110 7.7", line(b"GET /{case}/a%2Fb/%2e%2e/%41 HTTP/1.1"),
         AnyOf(BAD, All(Status(200), target(b"/{case}/a%2Fb/%2e%2e/%41")))),
    case("query passed on unchanged", "RFC 9110 7.7", line(b"GET /{case}?a=b&c=%20+&d==&?/;@: HTTP/1.1"),
         Status(200), target(b"/{case}?a=b&c=%20+&d==&?/;@:")),
    case("empty query passed on unchanged", "RFC 9110 7.7", line(b"GET /{case}? HTTP/1.1"), Status(200),
         target(b"/{case}?")),
    case("percent sign without digits", "RFC 3986 2.1", line(b"GET /{case}?a=%zz% HTTP/1.1"),
         AnyOf(BAD, All(Status(200), target(b"/{case}?a=%zz%")))),
    case("target of 4 KiB", "RFC 9112 3: at least 8000 octets", get(target=b"/{case}/" + b"a" * 4096), SEEN_CLEAN),
    case("a request line of 8000 bytes", "RFC 9112 3: at least 8000 octets",
         get(target=b"/{case}/".ljust(8000 - len(b"GET  HTTP/1.1"), b"a")), SEEN_CLEAN),
    case("target of 100 KiB", "RFC 9110 15.5.15", get(target=b"/{case}/" + b"a" * 102400), LIMITS),
    case("method of 100 KiB", "RFC 9112 3", get(method=b"A" * 102400), Refused(400, 405, 413, 414, 431, 501)),
    case("a TLS handshake", "not HTTP",
         Send(b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(range(32))
              + b"\x00\x00\x02\x13\x01\x01\x00\r\n\r\n"),
         Refused(400)),
    case("an HTTP/2 preface", "RFC 9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
         AnyOf(Refused(400, 405, 421, 501, 505), Malformed()), lax=True),  # a proxy may speak HTTP/2 here
    case("bytes of zero", "not HTTP", b"\x00" * 64 + b"\r\n\r\n", BAD),
)

HOSTS = topic(
    "syntax",
    case("no Host", "RFC 9112 3.2: respond with 400", get(host=None), BAD),
    case("no Host in HTTP/1.0", "RFC 9112 3.2", get(host=None, version=b"HTTP/1.0", close=False), Status(200),
         Requests(1), Closed()),
    case("the same Host twice", "RFC 9112 3.2: respond with 400", get(b"Host: bb.test"), BAD),
    case("Host with a space", "RFC 9112 3.2", get(host=b"bb test"), BAD),
    case("Host with a path", "RFC 9112 3.2", get(host=b"bb.test/evil"), BAD),
    case("Host with user information", "RFC 9110 7.2", get(host=b"user@bb.test"), BAD),
    case("Host with a port that is no number", "RFC 9110 7.2", get(host=b"bb.test:80x"), BAD),
    case("Host as a list", "RFC 9110 7.2", get(host=b"bb.test, other.test"), BAD),
    case("empty Host", "RFC 9112 3.2: valid, or refused", get(host=b""), AnyOf(BAD, SEEN_CLEAN)),
    case("Host with a port", "RFC 9110 7.2", get(host=b"bb.test:8080"), Status(200), has("host", b"bb.test:8080")),
    case("Host as an IPv6 address", "RFC 9110 7.2", get(host=b"[::1]:8080"), Status(200), has("host", b"[::1]:8080")),
    case("Host without its closing bracket", "RFC 9110 7.2", get(host=b"[::1"), BAD),
    case("absolute-form with another Host", "RFC 9112 3.2.2: the target wins",
         get(target=b"http://abs.test/{case}"), AnyOf(Refused(400, 403, 404, 421), All(
             Status(200), AnyOf(value("host", b"abs.test"), target(b"http://abs.test/{case}"))))),
    case("absolute-form with the same Host", "RFC 9112 3.2.2: accept",
         get(target=b"http://bb.test/{case}"), Status(200), target(b"/{case}", b"http://bb.test/{case}"),
         has("host", b"bb.test")),
    case("absolute-form with user information", "RFC 9110 4.2.4", get(target=b"http://user@bb.test/{case}"),
         AnyOf(BAD, All(Status(200), has("host", b"bb.test")))),
    case("absolute-form without a host", "RFC 9110 4.2.1: empty host is invalid", get(target=b"http:///{case}"), BAD),
)

FIELDS = topic(
    "syntax",
    case("a line without a colon", "RFC 9112 5", get(b"garbage"), AnyOf(BAD, SEEN_CLEAN)),
    case("an empty field name", "RFC 9112 5", get(b": value"), AnyOf(BAD, SEEN_CLEAN)),
    case("a space in a field name", "RFC 9112 5.1", get(b"X Name: 1"), AnyOf(BAD, SEEN_CLEAN)),
    case("a space before the colon", "RFC 9112 5.1: respond with 400", get(b"X-Name : 1"), BAD),
    case("a bracket in a field name", "RFC 9110 5.1", get(b"X(Name: 1"), AnyOf(BAD, SEEN_CLEAN)),
    case("a NUL in a field name", "RFC 9110 5.1", get(b"X\x00Name: 1"), AnyOf(BAD, SEEN_CLEAN)),
    case("a high byte in a field name", "RFC 9110 5.1", get(b"X-N\xe4me: 1"), AnyOf(BAD, SEEN_CLEAN)),
    case("a NUL in a value", "RFC 9110 5.5: refuse or SP", get(b"X-Value: a\x00b"), AnyOf(BAD, SEEN_CLEAN)),
    case("a bare CR in a value", "RFC 9110 5.5: refuse or SP", get(b"X-Value: a\rb"), AnyOf(BAD, SEEN_CLEAN)),
    case("a control byte in a value", "RFC 9110 5.5: may be kept", get(b"X-Value: a\x01b"), AnyOf(BAD, SEEN_CLEAN),
         lax=True),
    case("high bytes in a value", "RFC 9110 5.5: opaque", get(b"X-Value: caf\xe9 \xe2\x82\xac"),
         Status(200), has("x-value", b"caf\xe9 \xe2\x82\xac")),
    case("an empty value", "RFC 9112 5", get(b"X-Value:"), SEEN_CLEAN),
    case("blanks around a value", "RFC 9112 5: OWS", get(b"X-Value: \t a \t b \t "), Status(200),
         has("x-value", b"a \t b")),
    case("no blank after the colon", "RFC 9112 5", get(b"X-Value:a"), Status(200), has("x-value", b"a")),
    case("a folded value", "RFC 9112 5.2: refuse or SP", get(b"X-Value: a\r\n b"), AnyOf(BAD, SEEN_CLEAN)),
    case("a blank line start before the first field", "RFC 9112 2.2: refuse or skip",
         b"GET /{case} HTTP/1.1\r\n X-First: 1\r\nHost: bb.test\r\nConnection: close\r\n\r\n",
         AnyOf(BAD, All(SEEN_CLEAN, lacks("x-first")))),
    case("lines that end in bare LF", "RFC 9112 2.2: refuse or read",
         b"GET /{case} HTTP/1.1\nHost: bb.test\nConnection: close\n\n", AnyOf(BAD, SEEN_CLEAN)),
    case("one line that ends in bare LF", "RFC 9112 2.2", get(b"X-A: 1\nX-B: 2"), AnyOf(BAD, SEEN_CLEAN)),
    case("repeated fields stay in order", "RFC 9110 5.3", get(b"X-Value: 1", b"X-Other: a", b"X-Value: 2"), Status(200),
         Request("1 then 2", lambda m: b",".join(m.all("x-value")).replace(b" ", b"") == b"1,2")),
    case("two Cookie fields", "RFC 6265 5.4", get(b"Cookie: a=1", b"Cookie: b=2"), Status(200),
         Request("both", lambda m: b"a=1" in b";".join(m.all("cookie")) and b"b=2" in b";".join(m.all("cookie")))),
    case("100 KiB in one field", "RFC 6585 5", get(b"X-Value: " + b"a" * 102400), LIMITS),
    case("3000 fields", "RFC 6585 5", get(*[b"X-%d: %d" % (n, n) for n in range(3000)]), LIMITS),
    case("sixty ordinary fields", "RFC 9110 5.4", get(*[b"X-%d: %d" % (n, n) for n in range(60)]), SEEN_CLEAN,
         has("x-59", b"59")),
    case("a field of 7 KiB", "RFC 9110 5.4", get(b"Cookie: " + b"a" * 7000), SEEN_CLEAN),
    case("a field of 4 KiB", "RFC 9110 5.4", get(b"Cookie: " + b"a" * 4096), SEEN_CLEAN),
    case("a head byte by byte", "TCP has no messages", Send(get(b"X-Value: 1"), piece=1, pause_s=0.001), SEEN_CLEAN,
         has("x-value", b"1")),
    case("a head that never ends", "RFC 9112 2.2: bounded", b"GET /{case} HTTP/1.1\r\n" + b"X-A: " + b"a" * 200000,
         LIMITS, close_wait_s=4.0, lax=True),
    case("a head cut off by the client", "RFC 9112 8: incomplete", (get()[:-2], HalfClose()), Refused(400, 408)),
    case("a request line cut off by the client", "RFC 9112 8: incomplete", (b"GET /{case} HT", HalfClose()),
         Refused(400, 408)),
)

CASES = LINES + HOSTS + FIELDS
