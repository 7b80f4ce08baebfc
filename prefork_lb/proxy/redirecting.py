"""The answer of a pool that redirects: the client is sent to the picked server, at the server's own address.

The target is that of the request, byte for byte, and begins with a slash (`wire.target`). It comes behind a scheme and a host of
the configuration, so no client chooses where it leads to. A byte that could end the field is in no target (`wire.grammar`).
"""
from __future__ import annotations

from prefork_lb.errors import FinalRecipient
from prefork_lb.proxy.error_pages import reason
from prefork_lb.proxy.outbound import REQUEST_PIECE_BYTES
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import BodySource
from prefork_lb.proxy.response_fields import notes_on
from prefork_lb.upstream.lease import Lease
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.framing import BY_LENGTH, NO_BODY, Framing
from prefork_lb.wire.head import ResponseHead

# A redirect is the choice for one request, so no cache may keep it. Clients keep a permanent one for as long as they like unless
# they are told otherwise (RFC 9110 15.4.2, 15.4.9): here for a minute. A cache for many clients would send all to one server.
_CACHE_CONTROL = {301: b"private, max-age=60", 302: b"no-store", 307: b"no-store", 308: b"private, max-age=60"}

_DROPPED_BYTES = 1 << 20


def check_redirectable(target: bytes) -> None:
    """Raise FinalRecipient, the answer 204, for `OPTIONS *`: it asks for nothing that is at another address."""
    if not target.startswith(b"/"):
        raise FinalRecipient("OPTIONS * to a pool that redirects")


def drop_body(body: BodySource) -> None:
    """Receive a request's body, up to a limit. A client that sends it to the end before it reads may lose an answer that comes
    earlier: when the connection is closed with bytes that nobody has received, the kernel resets it (RFC 9112 9.6).

    Raises what `read` raises.
    """
    left = _DROPPED_BYTES
    while left > 0 and (data := body.read(REQUEST_PIECE_BYTES)):
        left -= len(data)


def redirect(lease: Lease, status: int, method: bytes, target: bytes, pseudonym: bytes) -> Reply:
    """Answer with a redirect to the lease's server, and give the lease back."""
    with lease:
        phrase = reason(status).encode()
        location = lease.server.public + target
        page = b"%d %b\n%b\n" % (status, phrase, location)
        fields = [(b"Location", location), (b"Cache-Control", _CACHE_CONTROL[status]),
                  (b"Content-Type", b"text/plain; charset=utf-8")]
        head = ResponseHead(status, phrase, 1, [*fields, (b"Content-Length", b"%d" % len(page))])
        notes = notes_on(head)
        # As they are: no server has sent them, so no Via tells of one.
        notes.fields, notes.lines = fields, field_lines(fields)
        is_head = method == b"HEAD"
        reply = Reply(head, NO_BODY if is_head else Framing(BY_LENGTH, len(page)), None, b"" if is_head else page, lease, True,
                      pseudonym)
        lease.keep()
    return reply
