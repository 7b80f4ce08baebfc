"""Tunnels through ProxyWorker beside echoes: what may switch, half-closes, breaks, kills, limits, TLS, the log."""
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.support.balancer import PROXY, Balancer, pool_text, stopped
from tests.support.certificates import make_pair, needs_openssl
from tests.support.client import Address, Connection, Fields, fetch, request_bytes
from tests.support.memory import MemoryWatch
from tests.support.odd_behaviors import behave_oddly
from tests.support.origin import Origin
from tests.support.pattern import fits_pattern, pattern
from tests.support.place import HOST
from tests.support.rig import Rig
from tests.support.tls import believing
from tests.support.waiting import wait_until

IDLE_S = 2.0
MIB = 1 << 20
RAW = [("Connection", "Upgrade"), ("Upgrade", "raw")]


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin

    @property
    def address(self) -> Address:
        return self.balancer.address

    def in_flight(self) -> int:
        return sum(self.balancer.status().in_flight.values())


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Rig(tmp_path_factory.mktemp("tunnels")) as rig, Origin(1, behave_oddly) as origin:
        text = pool_text(origin.addresses) + '[log]\naccess = "lb.log"\n'
        extra = ["--access-logfile", "access.log", "--access-logformat", "%(s)s|%(U)s|%(B)s|%({upgrade}i)s"]
        yield Setup(rig.balancer(text, PROXY, workers=1, extra=extra), origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.balancer.wait_until_idle()


@contextlib.contextmanager
def opened(address: Address, target: str, fields: Fields = RAW) -> Iterator[Connection]:
    """A connection that has become a tunnel."""
    with Connection(address) as connection:
        connection.send(request_bytes(target, fields=fields))
        assert connection.head().startswith(b"HTTP/1.1 101 ")
        yield connection


def drained(connection: Connection) -> bytes:
    return b"".join(iter(connection.receive, b""))


def stands_still(origin: Origin) -> bool:
    """Whether the server has sent something, and nothing for a while."""
    before = sum(link.sent for link in list(origin.servers[0].links))
    time.sleep(0.2)
    return before > 0 and before == sum(link.sent for link in list(origin.servers[0].links))


# -- what may switch -----------------------------------------------------------------------------------------------


def test_a_server_that_switches_unasked_is_a_502(setup: Setup) -> None:
    """Not even a byte of what it said may reach the client (RFC 9110 15.2.2: 101 answers an Upgrade)."""
    asked: list[Fields] = [[], [("Upgrade", "raw")], [("Connection", "Upgrade")], [("Connection", "Upgrade"), ("Upgrade", "h2c")]]
    for fields in asked:
        response = fetch(setup.address, "/switch", fields=fields)
        assert response.status == 502 and b"nobody" not in response.body, fields
    assert fetch(setup.address, "/switch", version="1.0", fields=RAW).status == 502
    assert fetch(setup.address, "/switch", "POST", body=b"x", fields=RAW).status == 502


def test_only_what_may_be_is_offered_to_the_server(setup: Setup) -> None:
    with Connection(setup.address) as connection:
        fields = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "h2c, websocket"), ("Upgrade", "HTTP/2.0, raw/1")]
        assert connection.request("/echo", fields=fields).status == 200
        arrival = setup.origin.arrivals[-1]
        assert [name.strip() for value in arrival.values("Upgrade") for name in value.split(",")] == ["websocket", "raw/1"]
        assert "upgrade" in ",".join(arrival.values("Connection")).lower()
        assert connection.request("/echo", fields=[("Upgrade", "websocket")]).status == 200
        assert setup.origin.arrivals[-1].values("Upgrade") == [], "Connection did not name it"
        assert connection.request("/echo").status == 200
        assert setup.origin.arrivals[-1].values("Upgrade") == []


def test_a_server_that_wants_another_protocol_is_heard_and_the_connection_goes_on(setup: Setup) -> None:
    with Connection(setup.address) as connection:
        for _ in range(2):
            response = connection.request("/no-upgrade", fields=RAW)
            assert (response.status, response.body) == (426, b"no\n")
        assert len(connection.request("/bytes?n=8").body) == 8


# -- the two directions --------------------------------------------------------------------------------------------


def test_the_server_may_go_on_when_the_client_has_ended_its_side(setup: Setup) -> None:
    with opened(setup.address, "/tunnel?after=3000000") as connection:
        connection.send(b"the last words")
        connection.sock.shutdown(socket.SHUT_WR)
        data = drained(connection)
    assert data.startswith(b"the last words") and len(data) == 14 + 3_000_000 and fits_pattern(0, data[14:])

    def logged() -> list[tuple[int, int]]:
        file = setup.balancer.folder / "lb.log"  # made with its first lines
        # What stands behind the last line feed is still on its way.
        lines = [json.loads(line) for line in (file.read_bytes() if file.exists() else b"").split(b"\n")[:-1]]
        return [(line["bytes_in"], line["bytes_out"]) for line in lines if "after=" in line["target"]]

    wait_until(lambda: logged() == [(14, len(data))], "the log has what went both ways", 20)


def test_the_end_of_the_servers_side_reaches_the_client_behind_all_it_sent(setup: Setup) -> None:
    with opened(setup.address, "/pour?n=2000000") as connection:
        data = drained(connection)
    assert len(data) == 2_000_000 and fits_pattern(0, data)


def test_a_slow_reader_of_a_tunnel_costs_no_memory(setup: Setup) -> None:
    (worker,) = setup.balancer.workers()
    length, done = 96 * MIB, 0
    with opened(setup.address, f"/pour?n={length}") as connection, MemoryWatch(worker) as memory:
        wait_until(lambda: stands_still(setup.origin), "all buffers on the way are full")
        while piece := connection.receive():
            assert fits_pattern(done, piece)
            done += len(piece)
    assert done == length and memory.growth <= 2 * MIB, memory.growth


def test_both_directions_flow_at_once_however_full_they_are(setup: Setup) -> None:
    """An echo that is sent much more than it is read from: neither direction may wait for the other one."""
    length = 24 * MIB
    with opened(setup.address, "/tunnel") as connection:
        def send() -> None:
            for offset in range(0, length, MIB // 2):
                connection.send(bytes(pattern(offset, MIB // 2)))
            connection.sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        done = 0
        while piece := connection.receive():
            assert fits_pattern(done, piece)
            done += len(piece)
        sender.join(20)
    assert done == length


def test_two_hundred_tunnels_at_once(setup: Setup) -> None:
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(opened(setup.address, "/tunnel")) for _ in range(200)]
        assert setup.in_flight() == 200
        for turn in range(3):
            for number, connection in enumerate(many):
                connection.send(b"%d,%d;" % (number, turn))
            for number, connection in enumerate(many):
                assert connection.receive() == b"%d,%d;" % (number, turn)
        with Connection(setup.address) as other:
            assert other.request("/").status == 200


# -- the end -------------------------------------------------------------------------------------------------------


def test_a_reset_of_the_server_ends_the_clients_connection(setup: Setup) -> None:
    with opened(setup.address, "/reset-tunnel") as connection:
        assert connection.receive() == b"some"
        setup.origin.release()
        assert connection.ended()


def test_a_half_closed_tunnel_ends_at_the_idle_deadline(rig: Rig, setup: Setup) -> None:
    balancer = rig.balancer(f"[proxy.timeouts]\nidle = {IDLE_S}\n" + pool_text(setup.origin.addresses), PROXY, workers=1)
    begin = time.monotonic()
    with opened(balancer.address, "/silent-tunnel") as connection:
        connection.sock.shutdown(socket.SHUT_WR)
        assert connection.ended()
    assert time.monotonic() - begin > IDLE_S * 0.9
    balancer.wait_until_idle()


def test_a_tunnel_is_in_the_access_log_with_its_bytes(setup: Setup) -> None:
    with opened(setup.address, "/pour?n=12345") as connection:
        assert len(drained(connection)) == 12345
    log = setup.balancer.folder / "access.log"
    wait_until(lambda: "101|/pour|12345|raw\n" in log.read_text(), log.read_text)


# -- workers -------------------------------------------------------------------------------------------------------


def test_a_killed_workers_tunnels_are_given_back(rig: Rig) -> None:
    with Origin(2, behave_oddly) as origin:
        balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=2)
        with contextlib.ExitStack() as stack:
            victim, other = balancer.workers()
            many = [stack.enter_context(opened(balancer.address, "/tunnel")) for _ in range(10)]
            with stopped([other]):  # so that the victim has some, whoever took the first ones
                many += [stack.enter_context(opened(balancer.address, "/tunnel")) for _ in range(5)]
            with stopped([victim]):
                many += [stack.enter_context(opened(balancer.address, "/tunnel")) for _ in range(5)]
            held = balancer.status().workers[victim]
            assert 5 <= held <= 15
            balancer.kill_worker(victim)
            wait_until(lambda: sum(balancer.status().in_flight.values()) == 20 - held, "its tunnels are given back")
            alive = 0
            for connection in many:
                with contextlib.suppress(OSError):
                    connection.send(b"x")
                    alive += connection.receive() == b"x"
            assert alive == 20 - held
        balancer.wait_until_idle()


def test_a_tunnel_counts_against_the_servers_limit(rig: Rig) -> None:
    with Origin(1, behave_oddly) as origin:
        server = f'{{ address = "{origin.addresses[0]}", max_connections = 2 }}'
        balancer = rig.balancer(pool_text([server]), PROXY, workers=2)
        with opened(balancer.address, "/tunnel"), opened(balancer.address, "/tunnel") as second:
            assert fetch(balancer.address).status == 503
            second.close()
            wait_until(lambda: fetch(balancer.address).status == 200, "there is room again")
        balancer.wait_until_idle()


def test_a_stop_waits_for_a_tunnel_and_ends_with_it(rig: Rig) -> None:
    with Origin(1, behave_oddly) as origin:
        balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1, extra=["--graceful-timeout", "60"])
        process = balancer.process
        assert process is not None
        with opened(balancer.address, "/tunnel") as connection:
            os.kill(balancer.master, signal.SIGTERM)
            wait_until(lambda: "Handling signal: term" in balancer.log(), balancer.log)
            for _ in range(10):
                connection.send(b"still here")
                assert connection.receive() == b"still here"
                time.sleep(0.05)
            assert process.poll() is None
        assert process.wait(20) == 0


def test_a_quick_stop_does_not_wait_for_a_tunnel(rig: Rig) -> None:
    with Origin(1, behave_oddly) as origin:
        balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1)
        process = balancer.process
        assert process is not None
        with opened(balancer.address, "/tunnel") as connection:
            os.kill(balancer.master, signal.SIGQUIT)
            assert connection.ended()
            assert process.wait(20) == 0


# -- WebSocket over TLS --------------------------------------------------------------------------------------------


def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            connection.send(message)


async def messages_pass(url: str, context: ssl.SSLContext) -> None:
    """Not by the client with threads: two of them use one TLS connection at once, which Python 3.11 does not guard against."""
    async with async_connect(url, ssl=context, max_size=8 * MIB, ping_interval=None) as client, asyncio.timeout(60):
        async def send() -> None:
            for _ in range(200):
                await client.send(os.urandom(20_000))

        sender = asyncio.create_task(send())
        assert sum([len(await client.recv()) for _ in range(200)]) == 200 * 20_000
        await sender
        for size in (0, 1, 16_384, 16_385, 3 * MIB):
            message = os.urandom(size)
            await client.send(message)
            assert await client.recv() == message


@needs_openssl
def test_websocket_messages_pass_through_tls(rig: Rig, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "front", HOST)
    with serve(echo, HOST, 0, max_size=8 * MIB) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        extra = ["--certfile", str(pair.certificate), "--keyfile", str(pair.key)]
        balancer = rig.balancer(pool_text([f"{HOST}:{server.socket.getsockname()[1]}"]), PROXY, workers=1, extra=extra,
                                secure=True)
        url = f"wss://{HOST}:{balancer.address[1]}/"
        asyncio.run(messages_pass(url, believing(pair)))
        balancer.wait_until_idle()
        server.shutdown()
        thread.join(20)


@pytest.mark.parametrize("closes", ["client", "server"])
def test_a_close_with_code_and_reason_passes(rig: Rig, closes: str) -> None:
    told: list[tuple[int | None, str | None]] = []

    def handle(connection: ServerConnection) -> None:
        try:
            if connection.recv() == "end":
                connection.close(4001, "by the server")
            connection.recv()
        except ConnectionClosed:
            told.append((connection.close_code, connection.close_reason))

    with serve(handle, HOST, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        balancer = rig.balancer(pool_text([f"{HOST}:{server.socket.getsockname()[1]}"]), PROXY, workers=1)
        host, port = balancer.address
        client: ClientConnection
        with connect(f"ws://{host}:{port}/") as client:
            if closes == "server":
                client.send("end")
                with pytest.raises(ConnectionClosed):
                    client.recv(timeout=20)
                assert (client.close_code, client.close_reason) == (4001, "by the server")
            else:
                client.send("stay")
                client.close(4002, "by the client")
        wait_until(lambda: told, "the server heard of the end")
        assert told == [(4001, "by the server") if closes == "server" else (4002, "by the client")]
        balancer.wait_until_idle()
        server.shutdown()
        thread.join(20)


def test_a_tunnel_without_a_server_is_an_ordinary_error(rig: Rig) -> None:
    with Origin(1, behave_oddly) as origin:
        balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1)
        origin.stop_server(0)
        with Connection(balancer.address) as connection:
            for _ in range(2):
                assert connection.request("/tunnel", fields=RAW).status == 502
        balancer.wait_until_idle()
