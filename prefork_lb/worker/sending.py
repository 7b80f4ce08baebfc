"""A response's body on its way to the client: as it comes from the server, or ahead of a client that reads slowly.

A response holds its server until the last byte came from it. A client that reads slowly would hold the server for as long as it
likes. So while the client takes nothing, what the server sends is received up to a limit; a response that ends within it gives
its server back, and the rest is sent from memory. A client that keeps up costs nothing: no byte waits here.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prefork_lb.errors import ClientGone, TruncatedBody
from prefork_lb.green.hub import READABLE
from prefork_lb.green.streams import GreenStream
from prefork_lb.proxy.reply import Reply
from prefork_lb.wire.chunked import encode_chunk, encode_last_chunk
from prefork_lb.wire.fields import allowed_trailers
from prefork_lb.worker.service import Service

_PIECE_BYTES, _LARGE_PIECE_BYTES = 64 * 1024, 512 * 1024
_LAGGING_BYTES = 1024 * 1024  # sent to a client, and not acknowledged


class Sink(Protocol):
    """A client's connection, as what is sent to it sees it."""

    service: Service
    stream: GreenStream
    body_sent: int

    def send(self, data: bytes) -> bool:
        """Send all of it; whether the client took it at once. Raises ClientGone."""

    def send_now(self, data: bytes) -> int:
        """Send what the client takes without a wait; the number of bytes. Raises ClientGone."""


def send_plain(client: Sink, reply: Reply, block: bytes) -> None:
    """Send the head's `block` and the body as it is. Raises ClientGone, TruncatedBody."""
    if not reply.is_ready:
        client.send(block)  # the body may take its time, as that of server-sent events
        block = b""
    data = reply.read()
    client.body_sent += len(data)
    if reply.is_received:
        client.send(block + data)
        return
    rest = _send_or_take(client, reply, block + data, bytes)
    fast = not rest
    while not reply.is_received:
        data = b""  # its memory is the next piece's
        # A client that keeps up gets large pieces, for they are cheap; one that does not would only have them lie here.
        data = reply.read(_LARGE_PIECE_BYTES if fast else _PIECE_BYTES)
        client.body_sent += len(data)
        if not data:
            break
        sent = client.send_now(data)
        fast = sent == len(data) and client.stream.unacknowledged() < _LAGGING_BYTES
        rest = b"" if sent == len(data) else _take(client, reply, data[sent:], bytes)
    if rest:
        client.send(rest)


def send_chunked(client: Sink, reply: Reply, block: bytes) -> None:
    """Send the head's `block` and the body in chunks. Raises ClientGone, TruncatedBody."""
    if not reply.is_ready:
        client.send(block)
        block = b""
    while True:
        data = reply.read()
        if data:
            block += encode_chunk(data)
            client.body_sent += len(data)
        if not reply.is_received:
            block = _send_or_take(client, reply, block, encode_chunk)
        if reply.is_received:
            client.send(block + encode_last_chunk(allowed_trailers(reply.trailers)))
            return


def _send_or_take(client: Sink, reply: Reply, data: bytes, frame: Callable[[bytes], bytes]) -> bytes:
    sent = client.send_now(data)
    return b"" if sent == len(data) else _take(client, reply, data[sent:], frame)


def _take(client: Sink, reply: Reply, rest: bytes, frame: Callable[[bytes], bytes]) -> bytes:
    """Send `rest` to a client that does not take it at once, and receive meanwhile what the server sends.

    Returns when all is sent, or the server has sent all: then with what the client has not taken yet.
    """
    stream, server = client.stream, reply.server
    assert isinstance(server, GreenStream)
    most, idle_s = client.service.times.ahead, client.service.times.idle
    while rest and not reply.is_received:
        room = most - len(rest)
        if room > 0 and server.ready & READABLE:
            try:
                data = reply.take(room)
            except TruncatedBody:
                client.send(rest)  # it came before the end
                raise
            if data:
                client.body_sent += len(data)
                rest += frame(data)
            continue
        waiting, deadline = stream.unacknowledged(), stream.hub.now + idle_s
        in_time = stream.wait_writable_or(server, deadline) if room > 0 else stream.wait_writable(deadline)
        # The kernel calls a socket writable when a third of its buffer is free: megabytes, a long time for a slow client.
        if not in_time and stream.unacknowledged() >= waiting:
            raise ClientGone("the client took no byte of the response for too long")
        rest = rest[client.send_now(rest):]
    return rest
