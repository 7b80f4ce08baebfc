"""The request as it goes to a server: its head as bytes, and its body in pieces."""
from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Final

from prefork_lb.errors import BadRequest, ContentTooLarge, ExpectationFailed, FinalRecipient, InvariantError
from prefork_lb.log_summary import summary
from prefork_lb.net.stream import Stream
from prefork_lb.proxy import tracing
from prefork_lb.proxy.request import BodySource, Request
from prefork_lb.routing.actions import NO_CHANGES, Applied
from prefork_lb.wire import grammar
from prefork_lb.wire.chunked import encode_chunk, encode_last_chunk
from prefork_lb.wire.cookies import without_cookie
from prefork_lb.wire.field_lines import Lines, check_fields
from prefork_lb.wire.fields import HOP_BY_HOP, allowed_trailers, cgi_name, nominated
from prefork_lb.wire.forwarded import is_told_by_proxies, told_lines
from prefork_lb.wire.framing import BY_CHUNKS, BY_LENGTH, BY_NOTHING, NO_BODY, Framing
from prefork_lb.wire.head import EXPECT, MAX_FORWARDS, Fields, FieldSection, Section
from prefork_lb.wire.target import Destination

REQUEST_PIECE_BYTES: Final = 64 * 1024  # of a request's body, read at a time

# Stop here, or are written anew: Host first (RFC 9110 7.2), the length as one number.
_NOT_COPIED: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"via", b"max-forwards"}


_SELDOM: Final = EXPECT | MAX_FORWARDS
_NO_NAMES: Final[frozenset[bytes]] = frozenset()


def request_block(request: Request, destination: Destination, framing: Framing, default_host: str, pseudonym: bytes,
                  own_cookies: frozenset[bytes] = _NO_NAMES, applied: Applied | None = None) -> bytes:
    """The head to send; the same for every server. `default_host` is for an HTTP/1.0 client that gave none, `own_cookies` are the
    names of cookies that are for this proxy alone. `applied`: whose changes of fields it has.

    Raises BadRequest, ExpectationFailed, FinalRecipient.
    """
    head, host = request.head, destination.host
    section = head.section
    rest = b""
    if section.notable & _SELDOM or framing is not NO_BODY or request.upgrade:
        rest = _seldom_lines(request, framing)
    before = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (
        head.method, destination.target, default_host.encode() if host is None else host)
    behind = b"%b%b" % (told_lines(section, head.minor, request.peer, host, pseudonym), rest)
    removed = _NO_NAMES
    if applied is not None and (changes := applied.actions.request) is not NO_CHANGES:
        removed = changes.removed
        if changes.own_lines is not None:
            before, behind = changes.own_lines.sub(b"", before), changes.own_lines.sub(b"", behind)
        behind += changes.lines(applied.facts)
    behind += b"\r\n"
    travelling = _LINES if request.identity is None else _UNNAMED_LINES
    if own_cookies or isinstance(section, FieldSection):
        return b"%b%b%b" % (before, _carried(section, own_cookies, removed, travelling), behind)
    return travelling.join(section.without(removed, True) if removed else section, before, behind)


def _seldom_lines(request: Request, framing: Framing) -> bytes:
    """The lines that few requests have."""
    head, rest = request.head, b""
    index = head.index
    if b"expect" in index and any(expectation.lower() != b"100-continue" for expectation in index[b"expect"]):
        raise ExpectationFailed(f"Expect: {b', '.join(index[b'expect'])[:40]!r}")
    if b"max-forwards" in index:
        rest = b"".join([b"Max-Forwards: %b\r\n" % (_one_less(forwards) if head.method == b"OPTIONS" else forwards)
                         for forwards in index[b"max-forwards"]])
    if request.relays_continue:
        rest += b"Expect: 100-continue\r\n"  # else the front end has told the client to go on, and all is sent in one go
    if request.upgrade:
        rest += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
    if framing.kind is BY_LENGTH:
        rest += b"Content-Length: %d\r\n" % framing.length
    elif framing.kind is BY_CHUNKS:
        rest += b"Transfer-Encoding: chunked\r\n"
    return rest


def _travels(name: bytes) -> bool:
    return name not in _NOT_COPIED and not is_told_by_proxies(name)


_LINES: Final = Lines(_travels, BadRequest)
# Of requests that have an identity.
_UNNAMED_LINES: Final = Lines(lambda name: _travels(name) and cgi_name(name) not in tracing.FIELDS, BadRequest)


def _carried(section: Section, own_cookies: frozenset[bytes], removed: frozenset[bytes], travelling: Lines) -> bytes:
    """The lines of the fields that travel on unchanged, without the `removed` ones. A front end whose sections come again keeps
    them with the section.

    Raises BadRequest.
    """
    kept = section.kept if isinstance(section, FieldSection) else None
    # With what they depend on: it is the same as long as the section's requests take the same route.
    if isinstance(kept, tuple) and kept[0] == own_cookies and kept[1] == removed and kept[2] is travelling:
        lines: bytes = kept[3]
        return lines
    left = section.without(removed, True) if removed else section
    if own_cookies and b"cookie" in left:
        lines = travelling.join_fields(_without_cookies(left.fields, own_cookies), nominated(left))
    else:
        lines = travelling.join(left)
    if isinstance(section, FieldSection):
        section.kept = own_cookies, removed, travelling, lines
    return lines


def _without_cookies(fields: Fields, names: frozenset[bytes]) -> Fields:
    """The fields without the cookies of these names, and without a Cookie field that had no other."""
    found = []
    for field in fields:
        if field[0].lower() != b"cookie":
            found.append(field)
            continue
        values: Sequence[bytes] = (field[1],)
        for name in names:
            values = without_cookie(values, name)
        found += [(field[0], value) for value in values]
    return found


def _one_less(forwards: bytes) -> bytes:
    # RFC 9110 7.6.2: counted down on the way; at zero this proxy is the final recipient.
    if not grammar.length.fullmatch(forwards):
        raise BadRequest(f"Max-Forwards is no number: {forwards[:40]!r}")
    if int(forwards) == 0:
        raise FinalRecipient("OPTIONS with Max-Forwards: 0")
    return b"%d" % (int(forwards) - 1)


class OutboundBody:
    """A request's body on its way to a server, in pieces that are framed already.

    The first piece is read before a server is claimed, and is the whole of a body that is short enough: so a client that sends a
    small body slowly holds no claim. It can be sent again to another server as long as nothing more was read. When the client
    waits to be told to go on, there is nothing to read yet. What follows is kept for another attempt if `keep` is called.
    """

    def __init__(self, source: BodySource, framing: Framing, read_ahead: bool = True, collect: int = 0, most: int = 0) -> None:
        """Read the first piece, unless told otherwise. It is a whole body with a length of up to `collect` bytes, or the first
        `collect` bytes of a chunked one. Raises what `source.read` raises, and ContentTooLarge beyond `most` bytes; 0: no
        limit."""
        self._most = most
        self._source = source
        self._framing = framing
        self._left = framing.length
        self._first_only = True
        self._kept: SpooledTemporaryFile[bytes] | None = None
        self._keep_limit = 0
        self._kept_bytes = self._again = 0  # of what is kept: in all, and of it still to be sent again
        self._source_ended = framing.kind is BY_NOTHING
        self.received = 0  # bytes of its data that came from the client
        self.first = self._read_first(collect) if read_ahead else b""

    @property
    def ended(self) -> bool:
        """Whether `next_piece` has nothing more to give."""
        return self._source_ended and not self._again

    @property
    def is_whole(self) -> bool:
        """Whether the first piece is the whole body. Then it can be sent by several exchanges at a time."""
        return self._source_ended and self._first_only

    @property
    def is_replayable(self) -> bool:
        """Whether the body can be sent from its beginning again."""
        return self._first_only or self._kept is not None

    def keep(self, memory: int, limit: int) -> None:
        """Keep what is read behind the first piece, up to `limit` bytes, the first `memory` of them not on disk."""
        if limit and not self._source_ended and self._kept is None and self._first_only:
            self._keep_limit = limit
            self._kept = SpooledTemporaryFile(max_size=max(1, memory))

    def rewind(self) -> None:
        """Begin anew behind the first piece. To be called only while it `is_replayable`."""
        if self._kept is not None:
            self._kept.seek(0)
            self._again = self._kept_bytes

    def forget(self) -> None:
        """Keep no more: there is not going to be another attempt."""
        kept, self._kept = self._kept, None
        self._kept_bytes = self._again = 0
        if kept is not None:
            # On a full disk `close` fails too, if a write failed before it. It lets go of the file all the same.
            with contextlib.suppress(OSError):
                kept.close()

    def wait(self, server: Stream, timeout_s: float) -> bool:
        """Wait for the next piece; False when the server has something to say first. Raises RequestTimeout."""
        return self._source.wait(server, timeout_s)

    def next_piece(self) -> bytes:
        """The piece after the first, and so on; empty at the end."""
        if self._again and self._kept is not None:
            data = self._kept.read(min(REQUEST_PIECE_BYTES, self._again))
            self._again -= len(data)
            return data
        if self._source_ended:
            return b""
        self._first_only = False
        data = self._read()
        if self._kept is not None:
            self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        assert self._kept is not None
        self._kept_bytes += len(data)
        try:
            if self._kept_bytes <= self._keep_limit:
                self._kept.write(data)
                # A full disk shows here, and not at `rewind`, when the retry has begun.
                self._kept.flush()
                return
        except OSError as exc:
            summary.tell(logging.WARNING, "body not kept", "a request's body cannot be kept for another attempt: %s: %s",
                         gettempdir(), exc.strerror)
        self.forget()

    def _read_first(self, collect: int) -> bytes:
        first = self._read()
        if self._source_ended or self._framing.length > collect:  # 0 for a chunked body
            return first
        pieces, size = [first], len(first)
        while size < collect and not self._source_ended:
            pieces.append(self._read())
            size += len(pieces[-1])
        return b"".join(pieces)

    def _read(self) -> bytes:
        if self._source_ended:
            return b""
        if self._framing.kind is BY_LENGTH:
            data = self._source.read(min(REQUEST_PIECE_BYTES, self._left)) if self._left else b""
            self._left -= len(data)
            self.received += len(data)
            if not data and self._left:
                raise InvariantError("a body source ended early without saying why")
            self._source_ended = self._left == 0
            return data
        data = self._source.read(REQUEST_PIECE_BYTES)
        if data:
            self.received += len(data)
            if self._most and self.received > self._most:
                raise ContentTooLarge(f"more than {self._most} bytes, which the route allows")
            return encode_chunk(data)
        self._source_ended = True
        trailers = allowed_trailers(self._source.trailers())
        check_fields(trailers, BadRequest)
        return encode_last_chunk(trailers)


class NoSource:
    """The source of a body that is not there."""

    def read(self, limit: int) -> bytes:
        return b""

    def wait(self, server: Stream, timeout_s: float) -> bool:
        return True

    def trailers(self) -> Fields:
        return []


NOTHING: Final = NoSource()
EMPTY: Final = OutboundBody(NOTHING, NO_BODY)
"""The body of a request that has none."""
