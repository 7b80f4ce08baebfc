"""What a client may switch to, and the two-way copy."""
from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream
from prefork_lb.wire.head import RequestHead
from prefork_lb.worker.tunnel import offered, run_tunnel
from tests.support.standstill import undisturbed
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


def tunnel(hub: Hub, idle_s: float) -> tuple[socket.socket, socket.socket, threading.Thread, list[tuple[int, int]]]:
    """A tunnel between two sockets, running in a thread of its own; its result ends up in the list."""
    client, client_end = socket.socketpair()
    server, server_end = socket.socketpair()
    for mine in (client, server):
        mine.setblocking(False)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # a server that reads slowly is felt at once
    for end in (client_end, server_end):
        end.settimeout(10)
    sent: list[tuple[int, int]] = []

    def use() -> int:
        streams = GreenStream(hub, client), GreenStream(hub, server)
        copied = run_tunnel(*streams, idle_s)
        for stream in streams:
            stream.close()
        return copied

    return client_end, server_end, threading.Thread(target=lambda: sent.append(run(hub, use)), daemon=True), sent


def in_thread(idle_s: float = 5.0) -> tuple[socket.socket, socket.socket, threading.Thread, list[tuple[int, int]]]:
    ready: list[tuple[socket.socket, socket.socket, threading.Thread, list[tuple[int, int]]]] = []
    done: list[tuple[int, int]] = []

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
    assert sent == [(len(b"ping"), len(b"pongthe rest"))]


def test_silence_ends_it_but_one_busy_direction_keeps_it() -> None:
    idle_s = 0.5

    def attempt() -> None:
        client, server, thread, sent = in_thread(idle_s)
        for _ in range(10):
            last = time.monotonic()
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            time.sleep(idle_s / 5)
        assert server.recv(1) == b"" and client.recv(1) == b""
        assert time.monotonic() - last >= idle_s * 0.9
        thread.join(10)
        assert sent == [(10, 0)]

    undisturbed(attempt, idle_s / 5)


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


def test_a_direction_that_stalls_beside_a_busy_one_loses_no_byte_silently() -> None:
    """The client sends all the time and reads late: what it then gets is whole up to a break, without a gap."""
    client, server, thread, _ = in_thread(idle_s=0.2)
    data = b"".join(b"%08d" % number for number in range(200_000))
    ended = threading.Event()

    def server_sends() -> None:
        with contextlib.suppress(OSError):
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def server_reads() -> None:
        with contextlib.suppress(OSError):
            while server.recv(8192):  # more slowly than the client sends, so that the worker always has something to copy
                time.sleep(0.001)

    def client_sends() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                client.sendall(b"x" * 100_000)

    threads = [threading.Thread(target=target, daemon=True) for target in (server_sends, server_reads, client_sends)]
    for each in threads:
        each.start()
    thread.join(1.0)  # the client reads nothing for several idle timeouts
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(1 << 16):
            received += piece
    ended.set()
    assert data.startswith(received)
    client.close()
    server.close()
    thread.join(10)
    for each in threads:
        each.join(10)


def test_a_direction_that_waits_for_its_sink_ends_when_the_other_one_breaks(caplog: pytest.LogCaptureFixture) -> None:
    """The worker waits until the server takes more. Then the client is gone, which the other direction finds."""
    client, server, thread, _ = in_thread(idle_s=60.0)
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(b"x" * 65536)
            time.sleep(0.005)  # the worker copies, until the server's buffer is full
    client.close()
    server.sendall(b"y" * 1000)
    thread.join(10)
    assert not thread.is_alive()
    assert "internal error" not in caplog.text
    server.close()
