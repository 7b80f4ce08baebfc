"""The head of a response as it goes to a client."""
from __future__ import annotations

from collections.abc import Callable

from prefork_lb.proxy.error_pages import reason
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.response_fields import known_block, note_block
from prefork_lb.wire.framing import BY_NOTHING
from prefork_lb.wire.head import DATE


def status_line(status: int, text: bytes = b"") -> bytes:
    """The status line (RFC 9112 4); the version is that of this proxy (RFC 9110 2.5)."""
    return b"HTTP/1.1 %d %b\r\n" % (status, text or reason(status).encode())


def reply_block(reply: Reply, date: Callable[[], bytes]) -> bytes:
    """The head of a server's response, without the Connection and Transfer-Encoding lines and the final blank line.

    `date` gives the Date value when the server sent none (RFC 9110 6.6.1).
    """
    head = reply.head
    has_body = reply.framing.kind is not BY_NOTHING  # without a body the block depends on the request's method too
    block = known_block(head) if has_body else None
    if block is None:
        is_dated = head.section.notable & DATE
        block = reply.block(status_line(head.status, head.reason), b"" if is_dated else b"Date: %b\r\n" % date())
        if is_dated and has_body:
            note_block(head, block)
    return block
