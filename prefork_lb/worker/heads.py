"""The head of a response as it goes to a client."""
from __future__ import annotations

from collections.abc import Callable

from prefork_lb.proxy.carried import notes_on
from prefork_lb.proxy.pages import reason
from prefork_lb.proxy.reply import Reply
from prefork_lb.wire.framing import BY_NOTHING


def status_line(status: int, text: bytes = b"") -> bytes:
    """The status line (RFC 9112 4); the version is that of this proxy (RFC 9110 2.5)."""
    return b"HTTP/1.1 %d %b\r\n" % (status, text or reason(status).encode())


def reply_block(reply: Reply, date: Callable[[], bytes]) -> bytes:
    """The head of a server's response, without the Connection and Transfer-Encoding lines and the final blank line.

    `date` gives the Date value when the server sent none (RFC 9110 6.6.1).
    """
    head = reply.head
    notes = notes_on(head)
    block = notes.block
    if block is None or reply.framing.kind is BY_NOTHING:
        block = status_line(head.status, head.reason) + reply.lines
        if b"date" not in head.index:
            return block + b"Date: %b\r\n" % date()
        if reply.framing.kind is not BY_NOTHING:  # without a body the block depends on the request's method too
            notes.block = block
    return block
