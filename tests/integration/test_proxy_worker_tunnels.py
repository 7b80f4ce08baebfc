"""Tunnels and slow streams through ProxyWorker: WebSocket with a real library, server-sent events."""
from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Connection, fetch, request_bytes
from tests.support.origin import Origin
from tests.support.pattern import pattern
from tests.support.place import HOST
from tests.support.rig import Rig
from tests.support.standstill import undisturbed

IDLE_S = 2.5
MIB = 1 << 20


def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            if message == "end":
                connection.close(1000, "as asked")
            connection.send(message)


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin

    @property
    def url(self) -> str:
        host, port = self.balancer.address
        return f"ws://{host}:{port}/"

    def in_flight(self) -> int:
        return sum(self.balancer.status().in_flight.values())


@pytest.fixture(scope="module")
def websocket_server() -> Iterator[Server]:
    with serve(echo, HOST, 0, max_size=8 * MIB) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(20)


@pytest.fixture(scope="module")
def setup(websocket_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    port = websocket_server.socket.getsockname()[1]
    with Rig(tmp_path_factory.mktemp("tunnels")) as rig:
        origin = rig.origin(1)
        text = pool_text([f"{HOST}:{port}"], name="sockets")
        text += pool_text(origin.addresses) + '[[routes]]\nhosts = ["web.example"]\npool = "web"\n[[routes]]\npool = "sockets"\n'
        yield Setup(rig.balancer(text, PROXY, workers=2), origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.balancer.wait_until_idle()


def websocket(setup: Setup) -> ClientConnection:
    return connect(setup.url, max_size=8 * MIB, ping_interval=None)


def test_messages_of_all_sizes_come_back(setup: Setup) -> None:
    with websocket(setup) as client:
        for size in (0, 1, 125, 126, 70_000, 3 * MIB):
            message = os.urandom(size)
            client.send(message)
            assert client.recv(timeout=20) == message


def test_messages_cross_on_the_way(setup: Setup) -> None:
    """Many in both directions at once: neither direction waits for the other."""
    with websocket(setup) as client:
        sent = [str(number) * 5000 for number in range(200)]
        sender = threading.Thread(target=lambda: [client.send(message) for message in sent])
        sender.start()
        assert [client.recv(timeout=20) for _ in sent] == sent
        sender.join(20)


def test_a_tunnel_is_in_flight_until_the_client_closes_it(setup: Setup) -> None:
    with websocket(setup) as client:
        client.send("x")
        assert client.recv(timeout=20) == "x"
        assert setup.in_flight() == 1
    setup.balancer.wait_until_idle()


def test_a_tunnel_ends_when_the_server_closes_it(setup: Setup) -> None:
    with websocket(setup) as client:
        client.send("end")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.reason == "as asked"


def test_a_client_that_vanishes_ends_the_tunnel(setup: Setup) -> None:
    client = websocket(setup)
    assert setup.in_flight() == 1
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()
    setup.balancer.wait_until_idle()


def test_a_silent_tunnel_ends_at_the_idle_deadline_and_a_busy_one_does_not(
    setup: Setup, websocket_server: Server, rig: Rig
) -> None:
    text = pool_text([f"{HOST}:{websocket_server.socket.getsockname()[1]}"]) + f"[proxy.timeouts]\nidle = {IDLE_S}\n"
    impatient = Setup(rig.balancer(text, PROXY, workers=1), setup.origin)

    def outlives() -> None:
        with websocket(impatient) as silent, websocket(impatient) as busy:
            begin = time.monotonic()
            while time.monotonic() - begin < 2 * IDLE_S:
                busy.send("tick")
                assert busy.recv(timeout=20) == "tick"
                time.sleep(IDLE_S / 5)
            with pytest.raises(ConnectionClosed):
                silent.recv(timeout=20)
            busy.send("still here")
            assert busy.recv(timeout=20) == "still here"

    undisturbed(outlives, IDLE_S / 4)


def test_bytes_right_behind_the_upgrade_are_not_lost(setup: Setup) -> None:
    head = request_bytes(fields=[
        ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ])
    with Connection(setup.balancer.address) as client:
        client.send(head + b"\x81\x85\0\0\0\0hello")
        assert client.head().startswith(b"HTTP/1.1 101 ")
        assert client.receive() == b"\x81\x05hello"


@pytest.mark.parametrize("protocol", ["h2c", "HTTP/2.0", "TLS/1.3", "H2C"])
def test_another_http_in_a_tunnel_is_not_offered_to_the_server(setup: Setup, protocol: str) -> None:
    """Requests inside it would pass every rule unseen."""
    fields = [("Host", "web.example"), ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", protocol)]
    fields.append(("HTTP2-Settings", "AAMAAABk"))
    assert fetch(setup.balancer.address, "/echo", fields=fields).status == 200
    arrival = setup.origin.arrivals[-1]
    assert arrival.values("Upgrade") == [] and arrival.values("HTTP2-Settings") == []


def test_a_server_that_does_not_switch_just_answers(setup: Setup) -> None:
    with Connection(setup.balancer.address) as client:
        fields = [("Host", "web.example"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        assert client.request("/echo", fields=fields).status == 200
        assert client.request("/", fields=[("Host", "web.example")]).status == 200
    assert setup.origin.arrivals[-2].values("Upgrade") == ["websocket"]


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_each_piece_of_a_slow_stream_passes_at_once(setup: Setup, framing: str) -> None:
    """As server-sent events come: the server sends the next one when the client has this one."""
    pieces, size = 10, 20
    target = f"/steps?n={pieces}&size={size}&framing={framing}"
    with Connection(setup.balancer.address) as client, setup.origin.released_at_end():
        client.send(request_bytes(target, fields=[("Host", "web.example")]))
        assert client.head().startswith(b"HTTP/1.1 200 ")
        for number in range(pieces):
            received = b""
            while bytes(pattern(number * size, size)) not in received:
                data = client.receive()
                assert data, "the stream ended early"
                received += data
            setup.origin.release()
