"""A response's body on its way from the server to the client.

Facts of the world and what they force on us:

- A response holds its lease until its last byte has come from the server. So a client that reads slowly would hold the lease
  for as long as it likes. While the client takes nothing, the worker receives ahead, up to `ClientTimeouts.ahead` bytes. A
  response that ends within this limit gives its lease back, and the worker sends the rest from memory.
- The kernel takes data for a client until the socket's buffer is full, and reports room again when a third of it is free. For a
  slow client that may take longer than the idle timeout. So the worker counts acknowledged bytes before it gives a client up.

For a client that keeps up, no byte waits in the worker. The kernel passes a large body on by itself (`green.pipe`).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prefork_lb.errors import ClientGone, TruncatedBody
from prefork_lb.green.channel import READABLE
from prefork_lb.green.streams import GreenStream
from prefork_lb.net.stream import ReceiveStream, Watched
from prefork_lb.proxy.reply import Reply
from prefork_lb.wire.chunked import encode_chunk, encode_last_chunk
from prefork_lb.wire.fields import allowed_trailers
from prefork_lb.worker.client import Client

_SLOW_CLIENT_PIECE_BYTES: Final = 64 * 1024
_FAST_CLIENT_PIECE_BYTES: Final = 512 * 1024
_PASSED_ON_BYTES: Final = 64 * 1024  # a smaller rest of a body is copied as cheaply
_LAGGING_BYTES: Final = 1024 * 1024  # a client with so many unacknowledged bytes does not keep up


def send_plain(client: Client, reply: Reply, block: bytes, closes: bool) -> None:
    """Send the head's `block` and the body as it is. `closes`: the close comes next. Raises ClientGone, TruncatedBody."""
    data = reply.whole()
    if data is None:
        if not reply.is_ready:
            client.send(block)  # the body may come much later, as with server-sent events
            block = b""
        data = reply.read()
    client.body_sent += len(data)
    if reply.is_received:
        if closes:
            client.send_last(block + data)
        else:
            client.send(block + data)
        return
    rest = _send_or_take(client, reply, block + data, bytes)
    fast = not rest
    while not reply.is_received:
        # Large pieces are cheaper. A client that does not keep up gets small ones, because large ones would wait in memory.
        most = _FAST_CLIENT_PIECE_BYTES if fast else _SLOW_CLIENT_PIECE_BYTES
        data = b""  # frees the memory for the next piece
        if _is_passed_on(client, reply):
            left = _pass_on(client, reply, most)
        else:
            data = reply.read(most)
            client.body_sent += len(data)
            if not data:
                break
            left = data[client.send_now(data):]
        fast = not left and client.stream.unacknowledged() < _LAGGING_BYTES
        rest = _take(client, reply, left, bytes) if left else b""
    if rest:
        client.send(rest)


def send_chunked(client: Client, reply: Reply, block: bytes) -> None:
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


def _is_passed_on(client: Client, reply: Reply) -> bool:
    """Whether the kernel can move the rest of the body, and there is enough of it to be worth it."""
    server = reply.server
    return ((reply.left_bytes or 0) >= _PASSED_ON_BYTES and client.stream.is_plain
            and isinstance(server, GreenStream) and server.is_plain)


def _pass_on(client: Client, reply: Reply, most: int) -> bytes:
    """Let the kernel move the body's next bytes, `most` at most. Return those that the client has not taken."""
    stream, pipe = client.stream, client.service.pipe

    def move(server: ReceiveStream, left: int, timeout_s: float, watched: Watched) -> tuple[int, bytes] | None:
        assert isinstance(server, GreenStream)
        return pipe.pass_on(server, stream, timeout_s, watched, min(left, most))

    count, rest = reply.pass_on(move)
    client.body_sent += count
    return rest[client.send_now(rest):] if rest else rest


def _send_or_take(client: Client, reply: Reply, data: bytes, frame: Callable[[bytes], bytes]) -> bytes:
    sent = client.send_now(data)
    return b"" if sent == len(data) else _take(client, reply, data[sent:], frame)


def _take(client: Client, reply: Reply, rest: bytes, frame: Callable[[bytes], bytes]) -> bytes:
    """Send `rest` to a client that does not take it at once. Meanwhile receive what the server sends.

    Returns when the client has taken all, or the server has sent all. Returns what the client has not taken yet.
    """
    stream, server = client.stream, reply.server
    if reply.is_received:  # and the server's connection has been given back
        return rest
    assert isinstance(server, GreenStream)
    most = client.service.times.ahead
    may_have_room = False
    while rest and not reply.is_received:
        room = most - len(rest)
        if room > 0 and server.ready & READABLE:
            stream.hub.turns.share()
            # Others have run, so the client's room may have been reported while nobody waited for it, and is not reported again.
            may_have_room = True
            try:
                data = reply.take(room)
            except TruncatedBody:
                client.send(rest)  # the client gets what came before the cut
                raise
            if data:
                client.body_sent += len(data)
                rest += frame(data)
            continue
        if may_have_room:
            may_have_room = False
            rest = rest[client.send_now(rest):]
            continue
        wait_for_room(client, server if room > 0 else None)
        rest = rest[client.send_now(rest):]
    return rest


def wait_for_room(client: Client, server: GreenStream | None) -> None:
    """Wait until the client, which has just not taken all, has room, or `server` sends something.

    Raises ClientGone when the client has taken no byte for the idle timeout.
    """
    stream = client.stream
    waiting, deadline = stream.unacknowledged(), stream.hub.now + client.service.times.idle
    in_time = stream.wait_writable(deadline) if server is None else stream.wait_writable_or(server, deadline)
    # No room was reported, but the client may have acknowledged some bytes: only a client without progress is given up.
    if not in_time and stream.unacknowledged() >= waiting:
        raise ClientGone("the client took no byte of the response for too long")
