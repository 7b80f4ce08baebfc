"""What a client may switch to, and the two-way copy."""
from __future__ import annotations

import socket
import threading
import time

import pytest

from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream
from prefork_lb.wire.head import RequestHead
from prefork_lb.worker.tunnel import offered, run_tunnel
from tests.unit.green.running import run


@pytest.mark.parametrize(("connection", "upgrade", "minor", "expected"), [
    (b"Upgrade", b"websocket", 1, b"websocket"),
    (b"keep-alive, upgrade", b"websocket, foo/1", 1, b"websocket, foo/1"),
    (b"Upgrade", b"h2c", 1, b""),
    (b"Upgrade", b"h2c, websocket", 1, b"websocket"),
    (b"Upgrade", b"HTTP/2.0, TLS/1.2, IRC/6.9", 1, b"IRC/6.9"),
    (b"close", b"websocket", 1, b""),
    (b"Upgrade", b"websocket", 0, b""),
    (b"Upgrade", b" , ", 1, b""),
])
def test_what_is_offered_to_the_server(connection: bytes, upgrade: bytes, minor: int, expected: bytes) -> None:
    head = RequestHead(b"GET", b"/", minor, [(b"Host", b"a"), (b"Connection", connection), (b"Upgrade", upgrade)])
    assert offered(head) == expected


def tunnel(hub: Hub, idle_s: float) -> tuple[socket.socket, socket.socket, threading.Thread, list[int]]:
    """A tunnel between two sockets, running in a thread of its own; its result ends up in the list."""
    client, client_end = socket.socketpair()
    server, server_end = socket.socketpair()
    for mine in (client, server):
        mine.setblocking(False)
    for end in (client_end, server_end):
        end.settimeout(10)
    sent: list[int] = []

    def use() -> int:
        streams = GreenStream(hub, client), GreenStream(hub, server)
        copied = run_tunnel(*streams, idle_s)
        for stream in streams:
            stream.close()
        return copied

    return client_end, server_end, threading.Thread(target=lambda: sent.append(run(hub, use)), daemon=True), sent


def in_thread(idle_s: float = 5.0) -> tuple[socket.socket, socket.socket, threading.Thread, list[int]]:
    ready: list[tuple[socket.socket, socket.socket, threading.Thread, list[int]]] = []
    done: list[int] = []

    def body() -> None:
        hub = Hub()  # its greenlets belong to the thread that made it
        client_end, server_end, inner, sent = tunnel(hub, idle_s)
        ready.append((client_end, server_end, inner, sent))
        inner.run()
        done.extend(sent)
        run(hub, lambda: hub.sleep(0.001))
        hub.close()

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    while not ready:
        time.sleep(0.001)
    return ready[0][0], ready[0][1], thread, done


def test_both_directions_and_a_half_close() -> None:
    client, server, thread, sent = in_thread()
    client.sendall(b"ping")
    assert server.recv(9) == b"ping"
    server.sendall(b"pong")
    assert client.recv(9) == b"pong"
    client.shutdown(socket.SHUT_WR)
    assert server.recv(9) == b""
    server.sendall(b"the rest")  # the other direction goes on
    assert client.recv(99) == b"the rest"
    server.close()
    assert client.recv(9) == b""
    thread.join(10)
    assert sent == [len(b"pongthe rest")]


def test_silence_ends_it_but_one_busy_direction_keeps_it() -> None:
    client, server, thread, sent = in_thread(idle_s=0.15)
    for _ in range(10):
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        time.sleep(0.03)
    begin = time.monotonic()
    assert server.recv(1) == b"" and client.recv(1) == b""
    assert time.monotonic() - begin >= 0.1
    thread.join(10)
    assert sent == [0]


def test_a_broken_side_ends_the_other() -> None:
    client, server, thread, _ = in_thread()
    client.sendall(b"never read")
    time.sleep(0.02)
    server.close()  # with unread data: a reset
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while client.recv(9) or True:
            client.sendall(b"y" * 1000)
    thread.join(10)
    assert not thread.is_alive()
