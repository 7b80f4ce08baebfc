"""Framing: how the end of a body is known (RFC 9112 6)."""
from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from prefork_lb.errors import BadRequest, BadResponse, NotImplementedByProxy, ProxyError
from prefork_lb.wire import grammar
from prefork_lb.wire.head import CONTENT_LENGTH, FRAMES_BODY, Index, RequestHead, ResponseHead


class FramingKind(enum.Enum):
    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"  # responses only: the body ends with the connection


# How a body is ended. Python 3.11 looks a member up through the metaclass of its Enum, which costs as much as several calls:
# these names are for what is done for every request.
BY_NOTHING: Final = FramingKind.NONE
BY_LENGTH: Final = FramingKind.LENGTH
BY_CHUNKS: Final = FramingKind.CHUNKED
BY_CLOSE: Final = FramingKind.CLOSE


class Framing(NamedTuple):
    kind: FramingKind
    length: int = 0  # of Kind.LENGTH, in bytes


_new = tuple.__new__  # what the class does, at half the price: every new head comes by

NO_BODY: Final = Framing(FramingKind.NONE)
CHUNKED = Framing(FramingKind.CHUNKED)
UNTIL_CLOSE: Final = Framing(FramingKind.CLOSE)


def request_framing(head: RequestHead) -> Framing:
    """How a request's body ends (RFC 9112 6.3).

    Raises BadRequest or NotImplementedByProxy for anything that two readers could read differently.
    """
    notable, length = head.section.notable, head.section.length
    if not notable & FRAMES_BODY:
        return NO_BODY
    if notable & FRAMES_BODY == CONTENT_LENGTH and length >= 0:
        return Framing(BY_LENGTH, length)
    codings = head.index.get(b"transfer-encoding")
    lengths = head.index.get(b"content-length")
    if codings:
        if lengths:
            # RFC 9112 6.1: may be an attempt at smuggling; answer, then close.
            raise BadRequest("both Transfer-Encoding and Content-Length")
        if head.minor == 0:
            # RFC 9112 6.1: HTTP/1.0 has no transfer codings, the framing is faulty.
            raise BadRequest("Transfer-Encoding in an HTTP/1.0 request")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise _bad_coding(codings)
        return CHUNKED
    assert lengths is not None
    return _length(lengths, BadRequest)


def response_framing(head: ResponseHead, method: bytes) -> Framing:
    """How a response's body ends (RFC 9112 6.3), for a request made with `method`. Raises BadResponse."""
    framing = head.framing
    if framing is None:
        framing = head.framing = _response_framing(head)
    # RFC 9112 6.3, rule 1.
    return NO_BODY if method == b"HEAD" else framing


def _response_framing(head: ResponseHead) -> Framing:
    section, status = head.section, head.status
    if section.notable & FRAMES_BODY == CONTENT_LENGTH and section.length >= 0 and status >= 200 and status not in (204, 304):
        return _new(Framing, (BY_LENGTH, section.length))
    codings = head.index.get(b"transfer-encoding")
    lengths = head.index.get(b"content-length")
    if codings:
        if lengths:
            raise BadResponse("both Transfer-Encoding and Content-Length")
        if head.minor == 0:
            raise BadResponse("Transfer-Encoding in an HTTP/1.0 response")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadResponse(f"a transfer coding that was not asked for: {b', '.join(codings)[:80]!r}")
    # Also checked when there is no body: the client would reject an invalid length too.
    framing = _length(lengths, BadResponse) if lengths else CHUNKED if codings else UNTIL_CLOSE
    if head.status < 200 or head.status in (204, 304):
        return NO_BODY
    return framing


def content_length(index: Index) -> int | None:
    """The Content-Length of a response without a body (to HEAD, or a 304; RFC 9110 8.6); None if the field is absent."""
    lengths = index.get(b"content-length")
    return _length(lengths, BadResponse).length if lengths else None


def _length(lengths: Sequence[bytes], malformed: type[ProxyError]) -> Framing:
    # RFC 9110 8.6: a list of the same decimal value may be taken as that value; anything else is refused.
    members = {member.strip(b" \t") for value in lengths for member in value.split(b",")}
    if len(members) != 1:
        raise malformed(f"Content-Length differs: {b', '.join(lengths)[:80]!r}")
    text = members.pop()
    if not grammar.length.fullmatch(text):
        raise malformed(f"Content-Length is not a number of bytes: {text[:80]!r}")
    return Framing(BY_LENGTH, int(text))


def _bad_coding(codings: Sequence[bytes]) -> ProxyError:
    members = [member.strip(b" \t").lower() for value in codings for member in value.split(b",")]
    if members[-1] == b"chunked" and members.count(b"chunked") == 1 and all(grammar.token.fullmatch(m) for m in members):
        # RFC 9112 6.1: an unknown coding under a good framing is answered with 501.
        return NotImplementedByProxy(f"transfer coding {b', '.join(members)[:80]!r}")
    return BadRequest(f"Transfer-Encoding whose end is unknown: {b', '.join(codings)[:80]!r}")
