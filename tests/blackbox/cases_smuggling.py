"""Two readers, two boundaries: every known way to make a proxy and a server disagree about where a request ends."""
from __future__ import annotations

from .case import AwaitReplies, Send, case, get, post, topic
from .checks import (
    All,
    AnyOf,
    Check,
    Closed,
    NoStrays,
    Refused,
    Request,
    Requests,
    Served,
    Status,
    has,
    lacks,
    sent_body,
    target,
)

HELLO = b"5\r\nhello\r\n0\r\n\r\n"
NEXT = b"GET /{case}/smuggled HTTP/1.1\r\nHost: bb.test\r\n\r\n"
REFUSED = Refused(400, 422, 501)
ONE: Check = All(Status(200), Requests(1), Closed())
PLAIN_LENGTH = Request("framed by its length alone", lambda m: m.framing == "length" and m.body == b"hello")


def te(value: bytes, body: bytes = HELLO, name: bytes = b"Transfer-Encoding") -> bytes:
    """A POST with this transfer coding and no length."""
    return post(body, name + b": " + value, length=False)


def te_and_length(line: bytes) -> bytes:
    """A doubtful Transfer-Encoding line over a body framed by a length; read as chunked, a second request shows."""
    inner = b"0\r\n\r\n" + NEXT
    return post(inner, line)


def length(line: bytes, body: bytes = b"hello", close: bool = True) -> bytes:
    return post(body, line, length=False, close=close)


# A doubtful coding line: refused, or harmless because only the length goes on.
IGNORED = AnyOf(REFUSED, All(Requests(1), lacks("transfer-encoding")))

CASES = topic(
    "smuggling",
    case("cl.te: both framings, chunked body ends early", "RFC 9112 6.1, 6.3; CL.TE",
         get(b"Content-Length: 6", b"Transfer-Encoding: chunked", method=b"POST", close=False) + b"0\r\n\r\nG" + NEXT,
         AnyOf(REFUSED, ONE)),
    case("te.cl: both framings, length ends early", "RFC 9112 6.1, 6.3; TE.CL",
         get(b"Transfer-Encoding: chunked", b"Content-Length: 4", method=b"POST", close=False)
         + b"5c\r\n" + b"GET /{case}/smuggled HTTP/1.1\r\nHost: bb.test\r\nContent-Length: 15\r\n\r\nx=1".ljust(0x5c,
         b".")
         + b"\r\n0\r\n\r\n",
         AnyOf(REFUSED, ONE)),
    case("both framings agreeing, then a pipelined request", "RFC 9112 6.1: close after responding",
         get(b"Content-Length: 15", b"Transfer-Encoding: chunked", method=b"POST", close=False) + HELLO + NEXT,
         AnyOf(REFUSED, All(ONE, sent_body(b"hello")))),
    case("te.te: chunked then identity in two fields", "RFC 9112 6.1; TE.TE",
         post(HELLO, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", length=False), REFUSED),
    case("te.te: identity then chunked in two fields", "RFC 9112 6.1; TE.TE",
         post(HELLO, b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", length=False), REFUSED),
    case("te.te: a bogus coding beside chunked", "TE.TE",
         post(HELLO, b"Transfer-Encoding: chunked", b"Transfer-Encoding: cow", length=False), REFUSED),
    case("chunked twice in two fields", "RFC 9112 6.1: not more than once",
         post(HELLO, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", length=False), REFUSED),
    case("chunked twice in one field", "RFC 9112 6.1: not more than once", te(b"chunked, chunked"), REFUSED),
    case("chunked is not the final coding", "RFC 9112 6.3: respond with 400", te(b"chunked, gzip"), REFUSED),
    case("gzip, chunked", "RFC 9112 6.1: unknown codings get 501",
         te(b"gzip, chunked"), Refused(400, 415, 422, 501)),
    case("transfer coding gzip alone", "RFC 9112 6.3", te(b"gzip"), REFUSED),
    case("unknown coding beside a length", "RFC 9112 6.1", te_and_length(b"Transfer-Encoding: xchunked"), REFUSED),
    case("identity beside a length", "RFC 9112 7: identity is gone",
         te_and_length(b"Transfer-Encoding: identity"), IGNORED),
    case("empty coding beside a length", "RFC 9112 6.1", te_and_length(b"Transfer-Encoding:"), IGNORED),
    case("coding in quotes", "TE.TE", te_and_length(b'Transfer-Encoding: "chunked"'), REFUSED),
    case("chunked with a parameter", "RFC 9112 7.1: an error", te(b"chunked;q=1"), REFUSED),
    case("chunked with a vertical tab before it", "TE.TE", te_and_length(b"Transfer-Encoding: \x0bchunked"), REFUSED),
    case("chunked with a form feed after it", "TE.TE", te_and_length(b"Transfer-Encoding: chunked\x0c"), REFUSED),
    case("chunked with a NUL after it", "RFC 9110 5.5", te_and_length(b"Transfer-Encoding: chunked\x00"), REFUSED),
    case("chunked with a high byte after it", "TE.TE", te_and_length(b"Transfer-Encoding: chunked\xff"), REFUSED),
    case("chunked after an empty list member", "RFC 9110 5.6.1",
         te(b", chunked"), AnyOf(REFUSED, All(Status(200), Requests(1), sent_body(b"hello")))),
    case("chunked before an empty list member", "RFC 9110 5.6.1",
         te(b"chunked ,"), AnyOf(REFUSED, All(Status(200), Requests(1), sent_body(b"hello")))),
    case("chunked with tabs around it", "RFC 9110 5.5: OWS is not part",
         te(b"\tchunked\t"), Status(200), Requests(1), sent_body(b"hello")),
    case("chunked in mixed case", "RFC 9112 7: case-insensitive",
         te(b"ChUnKeD"), Status(200), Requests(1), sent_body(b"hello")),
    case("space before the colon of Transfer-Encoding", "RFC 9112 5.1: respond with 400",
         te_and_length(b"Transfer-Encoding : chunked"), Refused(400)),
    case("tab before the colon of Transfer-Encoding", "RFC 9112 5.1",
         te_and_length(b"Transfer-Encoding\t: chunked"), Refused(400)),
    case("space before the colon of Content-Length", "RFC 9112 5.1", length(b"Content-Length : 5"), Refused(400)),
    case("NUL in the name Content-Length", "RFC 9110 5.1", length(b"Content-Length\x00: 5"), Refused(400)),
    case("coding hidden in a folded line", "RFC 9112 5.2",
         te_and_length(b"X-Fold: a\r\n Transfer-Encoding: chunked"), IGNORED),
    case("coding folded away from its name", "RFC 9112 5.2",
         te_and_length(b"Transfer-Encoding:\r\n chunked"), AnyOf(REFUSED, ONE)),
    case("coding after a bare LF", "RFC 9112 2.2",
         te_and_length(b"X-Line: a\nTransfer-Encoding: chunked"), AnyOf(REFUSED, ONE)),
    case("coding after a bare CR", "RFC 9112 2.2",
         te_and_length(b"X-Line: a\rTransfer-Encoding: chunked"), IGNORED),
    case("coding line ends in CR CR LF", "RFC 9112 2.2", te_and_length(b"Transfer-Encoding: chunked\r"), REFUSED),
    case("coding with an underscore in its name", "CGI names; TE.TE",
         te_and_length(b"Transfer_Encoding: chunked"), AnyOf(REFUSED, All(Requests(1), sent_body(b"0\r\n\r\n" + NEXT)),
                                                           All(Status(200), Requests(1), lacks("transfer-encoding")))),
    case("chunked in HTTP/1.0", "RFC 9112 6.1: faulty framing, close",
         get(b"Connection: keep-alive", b"Transfer-Encoding: chunked", method=b"POST", version=b"HTTP/1.0", close=False)
         + HELLO + NEXT, AnyOf(Refused(400, 411, 501), All(Requests(1, 0), Closed()))),
    case("chunked and a length in HTTP/1.0", "RFC 9112 6.1: faulty framing, close",
         get(b"Connection: keep-alive", b"Content-Length: 15", b"Transfer-Encoding: chunked", method=b"POST",
             version=b"HTTP/1.0", close=False) + HELLO + NEXT, AnyOf(Refused(400, 501), All(Requests(1, 0), Closed()))),
    case("two different lengths", "RFC 9112 6.3: unrecoverable",
         length(b"Content-Length: 5\r\nContent-Length: 6"), Refused(400)),
    case("two different lengths, a request between them", "CL.CL",
         post(b"hello" + NEXT, b"Content-Length: 5", close=True), Refused(400)),
    case("the same length twice", "RFC 9110 8.6: refuse or make one",
         length(b"Content-Length: 5\r\nContent-Length: 5"), AnyOf(Refused(400), All(Status(200), PLAIN_LENGTH))),
    case("a list of equal lengths", "RFC 9110 8.6", length(b"Content-Length: 5, 5"),
         AnyOf(Refused(400), All(Status(200), PLAIN_LENGTH))),
    case("a length, then a list of lengths", "RFC 9110 8.6",
         length(b"Content-Length: 5\r\nContent-Length: 5, 6"), Refused(400)),
    case("a list with an empty length", "RFC 9110 8.6", length(b"Content-Length: 5,"),
         AnyOf(Refused(400), All(Status(200), PLAIN_LENGTH))),
    case("a list of different lengths", "RFC 9110 8.6", length(b"Content-Length: 5, 6"), Refused(400)),
    case("length with a plus sign", "RFC 9110 8.6: 1*DIGIT", length(b"Content-Length: +5"), Refused(400)),
    case("negative length", "RFC 9110 8.6", length(b"Content-Length: -5"), Refused(400)),
    case("hexadecimal length", "RFC 9110 8.6", length(b"Content-Length: 0x5"), Refused(400)),
    case("length with a space inside", "RFC 9110 8.6", length(b"Content-Length: 5 5"), Refused(400)),
    case("length with an underscore", "RFC 9110 8.6; int() takes it",
         length(b"Content-Length: 1_0", b"helloworld"), Refused(400)),
    case("length in other digits", "RFC 9110 8.6; isdigit() takes it",
         length(b"Content-Length: \xd9\xa5"), Refused(400)),
    case("length with a superscript digit", "RFC 9110 8.6; isdigit() takes it",
         length(b"Content-Length: \xb2", b"hi"), Refused(400)),
    case("length with a decimal point", "RFC 9110 8.6", length(b"Content-Length: 5.0"), Refused(400)),
    case("length with an exponent", "RFC 9110 8.6", length(b"Content-Length: 1e1", b"helloworld"), Refused(400)),
    case("length with a vertical tab", "RFC 9110 8.6", length(b"Content-Length: \x0b5"), Refused(400)),
    case("empty length", "RFC 9110 8.6", length(b"Content-Length:"), Refused(400)),
    case("length over 64 bits", "RFC 9110 8.6: anticipate overflow",
         length(b"Content-Length: 18446744073709551621"), Refused(400, 413)),
    case("length with leading zeros", "RFC 9110 8.6",
         length(b"Content-Length: 0005"), AnyOf(Refused(400), All(Status(200), sent_body(b"hello")))),
    case("length with blanks around it", "RFC 9110 5.5: OWS is not part",
         length(b"Content-Length: \t 5 \t"), Status(200), PLAIN_LENGTH),
    case("a request inside the body of a GET", "CL.0; RFC 9110 9.3.1",
         post(NEXT, method=b"GET"), AnyOf(Refused(400, 413), All(Status(200), Requests(1), sent_body(NEXT)))),
    case("a request inside the chunked body of a GET", "TE.0",
         post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(NEXT), NEXT), b"Transfer-Encoding: chunked", method=b"GET", length=False),
         AnyOf(Refused(400, 411, 413, 501),
               All(Status(200), Requests(1), Request("that body", lambda m: b"/smuggled" in m.body)))),
    case("a request inside the body of an OPTIONS", "OPTIONS with CL; CL.0",
         post(NEXT, method=b"OPTIONS"), AnyOf(Refused(400, 413), All(Requests(1), sent_body(NEXT)))),
    case("a request inside the body of a HEAD", "CL.0",
         post(NEXT, method=b"HEAD"), AnyOf(Refused(400, 413), All(Requests(1), sent_body(NEXT)))),
    case("a line break in the target, percent-encoded", "RFC 9110 7.7; CRLF injection",
         get(target=b"/{case}/a%0d%0aX-Injected:%201"), lacks("x-injected"),
         AnyOf(Refused(400, 403, 404), All(Status(200), target(b"/{case}/a%0d%0aX-Injected:%201")))),
    case("an h2c upgrade", "h2c smuggling; RFC 9110 7.8",
         get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
             close=False), lacks("http2-settings", "upgrade"), Status(200), close_wait_s=0.0),
    case("Connection names Content-Length", "hop-by-hop abuse; RFC 9110 7.6.1",
         post(NEXT, b"Connection: Content-Length", close=False),
         AnyOf(Refused(400), All(Status(200), Requests(1), sent_body(NEXT))), NoStrays(), alone=True, close_wait_s=0.2),
    case("Connection names Transfer-Encoding", "hop-by-hop abuse; RFC 9110 7.6.1",
         post(b"%x\r\n%b\r\n0\r\n\r\n" % (len(NEXT), NEXT), b"Transfer-Encoding: chunked",
              b"Connection: Transfer-Encoding", length=False, close=False),
         AnyOf(Refused(400), All(Status(200), Requests(1), sent_body(NEXT))),
         NoStrays(), alone=True, close_wait_s=0.2),
    case("zero length, then a second request", "RFC 9112 9.3.2: that is pipelining",
         (post(b"", close=False) + get(), AwaitReplies(2)), Served(2), replies=2, methods=(b"POST", b"GET")),
    case("a request after the refused one", "RFC 9112 2.2: nothing after an error is trusted",
         (Send(get(b"Content-Length: 5\r\nContent-Length: 6", method=b"POST", close=False) + b"hello" + NEXT),),
         Refused(400)),
    case("lengths that differ only after the 32nd bit", "RFC 9110 8.6: overflow",
         length(b"Content-Length: 4294967301"), AnyOf(Refused(400, 413, 408, 502, 504), Requests(0)),
         close_wait_s=0.0),
    case("Host twice around a smuggled name", "RFC 9112 3.2",
         get(b"Host: other.test"), Refused(400)),
    case("the length that the origin is told", "RFC 9112 6.1",
         post(b"hello"), Status(200), has("content-length", b"5"), lacks("transfer-encoding")),
)
