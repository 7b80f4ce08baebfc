"""The reply: what the client gets, and the owner of the lease while the body streams."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from prefork_lb.errors import TruncatedBody
from prefork_lb.net.stream import Stream
from prefork_lb.proxy.inbound import RESPONSE_PIECE_BYTES, BodyReader, Move
from prefork_lb.proxy.response_fields import final_block, final_fields
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.server import Server
from prefork_lb.wire.framing import BY_CLOSE, BY_LENGTH, BY_NOTHING, Framing, content_length
from prefork_lb.wire.head import Fields, ResponseHead

_Received = TypeVar("_Received")


class Reply:
    """A response on its way from a server to the client.

    The lease is given back as soon as the last byte came from the server, when reading fails, or by `close`, whichever is
    first; so a client that reads slowly holds a server no longer than it must.
    """

    __slots__ = ("_body", "_data", "_pseudonym", "_reusable", "added", "at_close", "framing", "head", "lease", "reason", "status")

    def __init__(self, head: ResponseHead, framing: Framing, body: BodyReader | None, data: bytes, lease: Lease,
                 request_sent: bool, pseudonym: bytes) -> None:
        """`body` reads the body from the server; None when it is here already as `data`, which after 101 are the tunnel's first
        bytes. `request_sent` tells whether the server received the request whole, without which its connection is of no use.
        """
        self.status = head.status
        self.reason = head.reason
        self.head = head
        self.framing = framing
        self.added: Sequence[tuple[bytes, bytes]] = ()  # what this proxy adds; behind the fields of the server, which are shared
        self.at_close: Callable[[], None] | None = None  # gives back what the request holds beside its lease
        self._body = body
        self._data = data
        self.lease = lease
        self._pseudonym = pseudonym
        self._reusable = request_sent and head.is_persistent and framing.kind is not BY_CLOSE
        if body is None:
            if head.status != 101:
                lease.succeed(self._reusable)
        elif body.is_received:
            self._release()

    def change_fields(self, removed: frozenset[bytes], written: Sequence[tuple[bytes, bytes]]) -> None:
        """Take the fields of these names (in lower case) out of the response, and write others."""
        head = self.head
        section = head.section.without(removed, False) if removed else head.section
        if section is not head.section:  # else the head stays, with what was worked out from it
            self.head = head.with_section(section)
        self.added = (*self.added, *written) if self.added else written

    def rewrite(self, status: int, fields: Fields) -> None:
        """Give the response another status, if it has one with content, and other fields in the place of the server's."""
        head = self.head
        self.status = status
        self.reason = head.reason if status == head.status else b""
        self.head = ResponseHead(status, self.reason, head.minor, fields)

    @property
    def fields(self) -> Fields:
        """The fields for the client, without those that belong to its connection."""
        fields = final_fields(self.head, self._pseudonym)
        length = _told_length(self.head, self.framing)
        return fields if length is None else [*fields, (b"Content-Length", b"%d" % length)]

    def block(self, before: bytes, behind: bytes) -> bytes:
        """The same as lines, between two pieces."""
        length = _told_length(self.head, self.framing)
        if length is not None:
            behind = b"Content-Length: %d\r\n%b" % (length, behind)
        return final_block(self.head, self._pseudonym, before, behind)

    @property
    def server(self) -> Stream | None:
        """The server's connection, as long as it is not given back; after 101 it is the other end of a tunnel."""
        return self.lease.stream

    @property
    def served_by(self) -> Server:
        """The server whose response it is."""
        return self.lease.server

    def end_tunnel(self) -> None:
        """Give the lease of a tunnel back. It has done its part, however it ended."""
        self.lease.succeed(reusable=False)

    def read(self, limit: int = RESPONSE_PIECE_BYTES) -> bytes:
        """The next data of the body, empty at the end; after 101 the tunnel's first bytes. At most `limit` are received for it.

        Raises TruncatedBody, after which the client must see a broken end, and ClientGone.
        """
        body = self._body
        if body is None:
            data, self._data = self._data, b""
            return data
        return self._from_server(body, body.read, limit)

    def pass_on(self, move: Move) -> tuple[int, bytes]:
        """Let `move` take the next data. Return how much that was, and what of it the client has not taken.

        The body has a length (`left_bytes`). Raises as `read`.
        """
        body = self._body
        assert body is not None
        return self._from_server(body, body.pass_on, move)

    def whole(self) -> bytes | None:
        """All of the body, if it is here already; not after 101."""
        if self._body is None:
            data, self._data = self._data, b""
            return data
        return None

    def take(self, limit: int, wait_s: float = 0.0) -> bytes:
        """Data of the body that has come from the server, or comes within `wait_s`; empty when there is none, or at the end.

        At most `limit` bytes are received. Raises TruncatedBody.
        """
        body = self._body
        return b"" if body is None else self._from_server(body, body.take, limit, wait_s)

    @property
    def is_received(self) -> bool:
        """Whether the server's part is over: all that `read` still gives is here."""
        return self._body is None or self._body.is_received

    @property
    def left_bytes(self) -> int | None:
        """Bytes of the body that are still to come from the server; None when that is not known."""
        return 0 if self._body is None else self._body.left_bytes

    @property
    def is_ready(self) -> bool:
        """Whether the next `read` need not wait. Where it must, the head should go to the client first."""
        return self._body is None or self._body.is_ready

    @property
    def trailers(self) -> Fields:
        """The trailer fields, after `read` came to the end."""
        return self._body.trailers if self._body is not None else []

    def close(self) -> None:
        """Give everything back. If the body was not read to its end, the client has left: the server's connection is closed."""
        if self.lease.is_open:
            self.lease.abandon()
        if self.at_close is not None:
            leave, self.at_close = self.at_close, None
            leave()

    def _from_server(self, body: BodyReader, receive: Callable[..., _Received], *arguments: object) -> _Received:
        """What an operation of the body gives. The lease ends with the body, or with its failure."""
        try:
            received = receive(*arguments)
        except TruncatedBody as exc:
            self.lease.fail(str(exc))
            raise
        if body.is_received:
            self._release()
        return received

    def _release(self) -> None:
        self.lease.succeed(self._reusable and (self._body is None or not self._body.excess))


def _told_length(head: ResponseHead, framing: Framing) -> int | None:
    """What Content-Length tells the client; None: there is none."""
    if framing.kind is BY_LENGTH:
        return framing.length
    if framing.kind is BY_NOTHING and head.status != 204:
        # RFC 9110 8.6: to HEAD, and with 304, it tells the length of the body that is not sent.
        return content_length(head.index)
    return None
