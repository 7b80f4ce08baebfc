"""The reply: what the client gets, and the owner of the lease while the body streams."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.errors import TruncatedBody
from prefork_lb.proxy.inbound import BodyReader
from prefork_lb.upstream.lease import Lease
from prefork_lb.wire.fields import HOP_BY_HOP, nominated
from prefork_lb.wire.forwarded import via
from prefork_lb.wire.framing import Framing, Kind, content_length
from prefork_lb.wire.head import Fields, ResponseHead, list_members


class Reply:
    """A response on its way from a server to the client.

    The lease is given back as soon as the last byte came from the server, when reading fails, or by `close`, whichever is
    first; so a client that reads slowly holds a server no longer than it must.
    """

    def __init__(self, head: ResponseHead, framing: Framing, body: BodyReader, lease: Lease, request_sent: bool,
                 pseudonym: bytes) -> None:
        """`request_sent` tells whether the server received the request whole, without which its connection is of no use."""
        self.status = head.status
        self.reason = head.reason
        self.framing = framing
        self.fields: Sequence[tuple[bytes, bytes]] = _response_fields(head, framing, pseudonym)
        self._body = body
        self._lease = lease
        self._reusable = request_sent and framing.kind is not Kind.CLOSE and _is_persistent(head)
        if body.is_received:
            self._release()

    def read(self) -> bytes:
        """The next data of the body, empty at the end.

        Raises TruncatedBody, after which the client must see a broken end, and ClientGone.
        """
        try:
            data = self._body.read()
        except TruncatedBody:
            self._lease.fail()
            raise
        if self._body.is_received:
            self._release()
        return data

    @property
    def is_received(self) -> bool:
        """Whether the server's part is over: all that `read` still gives is here."""
        return self._body.is_received

    @property
    def trailers(self) -> Fields:
        """The trailer fields, after `read` came to the end."""
        return self._body.trailers

    def close(self) -> None:
        """Give everything back. If the body was not read to its end, the client has left: the server's connection is closed."""
        self._lease.abandon()

    def _release(self) -> None:
        self._lease.succeed(self._reusable and not self._body.excess)


def _is_persistent(head: ResponseHead) -> bool:
    # RFC 9112 9.3.
    options = head.index.get(b"connection")
    if options is None:
        return head.minor == 1
    members = list_members(options)
    return b"close" not in members and (head.minor == 1 or b"keep-alive" in members)


# Stop here, or are written anew.
_NOT_COPIED = HOP_BY_HOP | {b"content-length", b"via"}


def _response_fields(head: ResponseHead, framing: Framing, pseudonym: bytes) -> Fields:
    carried = head.carried
    if carried is None:
        stop = nominated(head.index)
        carried = [field for field in head.fields if (name := field[0].lower()) not in _NOT_COPIED and name not in stop]
        carried.append((b"Via", via(head.index, head.minor, pseudonym)))
        head.carried = carried
    if framing.kind is Kind.LENGTH:
        return [*carried, (b"Content-Length", b"%d" % framing.length)]
    if framing.kind is Kind.NONE and head.status != 204:
        # RFC 9110 8.6: to HEAD, and with 304, it tells the length of the body that is not sent.
        length = content_length(head.index)
        if length is not None:
            return [*carried, (b"Content-Length", b"%d" % length)]
    return carried
