"""Slow streams pass through ProxyWorker as they come, and large bodies in little memory, whoever is the slow side."""
from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.certificates import make_pair, needs_openssl
from tests.support.client import Connection, request_bytes
from tests.support.memory import MemoryWatch
from tests.support.odd_behaviors import behave_oddly
from tests.support.origin import Origin
from tests.support.pattern import fits_pattern, pattern
from tests.support.rig import Rig
from tests.support.standstill import undisturbed
from tests.support.tls import SecureConnection
from tests.support.waiting import wait_until

GIB, MIB = 1 << 30, 1 << 20
GROWTH = 2 * MIB
# TLS needs buffers of its own for a record in either direction.
TLS_GROWTH = 3 * MIB
IDLE_S = 2.0
EVENTS = 20


class Setup(NamedTuple):
    plain: Balancer
    secure: Balancer | None
    origin: Origin


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """One worker each, so that every transfer is that worker's."""
    folder = tmp_path_factory.mktemp("streams")
    with Rig(folder) as rig, Origin(1, behave_oddly) as origin:
        text = pool_text(origin.addresses)
        secure = None
        if not needs_openssl.args[0]:
            pair = make_pair(folder, "front", "localhost")
            extra = ["--certfile", str(pair.certificate), "--keyfile", str(pair.key)]
            secure = rig.balancer(text, PROXY, workers=1, extra=extra, secure=True)
        yield Setup(rig.balancer(text, PROXY, workers=1), secure, origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.plain.wait_until_idle()


@pytest.fixture
def impatient(rig: Rig, setup: Setup) -> Balancer:
    """Before the same server, with a short idle time."""
    return rig.balancer(f"[proxy.timeouts]\nidle = {IDLE_S}\n" + pool_text(setup.origin.addresses), PROXY, workers=1)


class Listener:
    """A client of a stream. The server sends the next event when the test has released it."""

    def __init__(self, connection: Connection, framing: str = "chunked") -> None:
        connection.send(request_bytes(f"/events?n={EVENTS}&held=1&framing={framing}"))
        assert b"text/event-stream" in connection.head().lower()
        self._connection, self._buffer = connection, b""

    def wait(self) -> None:
        """Wait for an event."""
        while b"\n\n" not in self._buffer:
            data = self._connection.receive()
            assert data, "the stream ended early"
            self._buffer += data
        self._buffer = self._buffer.partition(b"\n\n")[2]


def open_connection(setup: Setup, how: str) -> Connection:
    if how == "plain":
        return Connection(setup.plain.address)
    if setup.secure is None:
        pytest.skip("the openssl command is missing")
    return SecureConnection(setup.secure.address)


@pytest.mark.parametrize("how", ["plain", "tls"])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_each_event_is_here_before_the_next_one_is_sent(setup: Setup, framing: str, how: str) -> None:
    with open_connection(setup, how) as connection, setup.origin.released_at_end():
        listener = Listener(connection, framing)
        for _ in range(EVENTS):
            listener.wait()
            setup.origin.release()


def test_fifty_streams_at_once_come_through_and_hold_nobody_up(setup: Setup) -> None:
    with contextlib.ExitStack() as stack, setup.origin.released_at_end():
        listeners = [Listener(stack.enter_context(Connection(setup.plain.address))) for _ in range(50)]
        other = stack.enter_context(Connection(setup.plain.address))
        for _ in range(EVENTS):
            for listener in listeners:
                listener.wait()
            assert other.request("/bytes?n=100").status == 200
            setup.origin.release()


def test_a_stream_lasts_as_long_as_events_come_within_the_idle_time(impatient: Balancer) -> None:
    def lasts() -> None:
        with Connection(impatient.address) as connection:
            connection.send(request_bytes(f"/events?n=5&gap={IDLE_S * 0.6}", close=True))
            data = b"".join(iter(connection.receive, b""))
        assert data.count(b"data: ") == 5 and data.endswith(b"0\r\n\r\n")

    undisturbed(lasts, IDLE_S * 0.3)


def test_a_stream_that_falls_silent_is_cut_and_does_not_look_whole(impatient: Balancer) -> None:
    with Connection(impatient.address) as connection:
        begin = time.monotonic()
        connection.send(request_bytes(f"/events?n=2&gap={IDLE_S * 2}", close=True))
        data = b"".join(iter(connection.receive, b""))
    assert data.count(b"data: ") == 0 and not data.endswith(b"0\r\n\r\n")
    assert time.monotonic() - begin >= IDLE_S * 0.9


def test_a_listener_that_leaves_between_two_events_is_noticed(rig: Rig) -> None:
    with Origin(1, behave_oddly) as origin:
        balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1)
        with Connection(balancer.address) as connection:
            connection.send(request_bytes("/events?n=2&gap=50"))  # within the idle time, and far longer than the waiting below
            connection.head()
            origin.wait_for_in_flight(1)
        origin.wait_for_in_flight(0)
        balancer.wait_until_idle()


def test_a_stream_goes_on_through_a_reload(rig: Rig) -> None:
    with Origin(1, behave_oddly) as origin:
        balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1)
        (old,) = balancer.workers()
        with Connection(balancer.address) as connection, origin.released_at_end():
            listener = Listener(connection)
            listener.wait()
            balancer.reload()
            assert old in balancer.workers(), "it waits for the stream"
            for _ in range(EVENTS - 1):
                origin.release()
                listener.wait()
        wait_until(lambda: old not in balancer.workers(), "the old worker has ended")


# -- large bodies --------------------------------------------------------------------------------------------------


def read_slowly(connection: Connection, length: int) -> int:
    """Receive in bursts, with pauses in which all buffers on the way fill up; how much fitted the pattern."""
    done, pause_at = 0, 0
    while piece := connection.receive(4 * MIB):
        assert fits_pattern(done, piece), f"the body differs after byte {done}"
        done += len(piece)
        if done >= pause_at:
            pause_at += length // 16
            time.sleep(0.1)
    return done


@pytest.mark.slow
def test_a_gibibyte_to_a_slow_reader_takes_no_memory(setup: Setup) -> None:
    (worker,) = setup.plain.workers()
    with Connection(setup.plain.address) as warm:
        warm.request(f"/bytes?n={8 * MIB}")
    with Connection(setup.plain.address, timeout=60) as connection, MemoryWatch(worker) as memory:
        connection.send(request_bytes(f"/bytes?n={GIB}", close=True))
        assert connection.head().startswith(b"HTTP/1.1 200 ")
        assert read_slowly(connection, GIB) == GIB
    assert memory.samples > 20 and memory.growth <= GROWTH, f"{memory.growth / MIB:.2f} MiB"


@pytest.mark.slow
def test_a_gibibyte_to_a_slow_server_takes_no_memory(setup: Setup) -> None:
    (worker,) = setup.plain.workers()
    upload(Connection(setup.plain.address, timeout=60), 8 * MIB)
    with MemoryWatch(worker) as memory:
        assert upload(Connection(setup.plain.address, timeout=60), GIB) == GIB
    assert memory.samples > 20 and memory.growth <= GROWTH, f"{memory.growth / MIB:.2f} MiB"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["down", "up"])
def test_large_bodies_under_tls_take_no_memory(setup: Setup, way: str) -> None:
    length = 128 * MIB
    if setup.secure is None:
        pytest.skip("the openssl command is missing")
    (worker,) = setup.secure.workers()
    for size in (8 * MIB, length):
        connection = SecureConnection(setup.secure.address, timeout=60)
        with MemoryWatch(worker) as memory:
            if way == "up":
                assert upload(connection, size) == size
            else:
                with connection:
                    connection.send(request_bytes(f"/bytes?n={size}", close=True))
                    connection.head()
                    assert read_slowly(connection, size) == size
    assert memory.samples > 5 and memory.growth <= TLS_GROWTH, f"{memory.growth / MIB:.2f} MiB"
    setup.secure.wait_until_idle()


def upload(connection: Connection, length: int) -> int:
    """Send `length` bytes to a server that takes its time; how many it received."""
    with connection:
        fields = [("Content-Length", str(length))]
        connection.send(request_bytes("/lazy-upload?gap=0.002", "POST", fields=fields, close=True))
        for offset in range(0, length, MIB // 2):
            connection.send(bytes(pattern(offset, min(MIB // 2, length - offset))))
        return int(connection.response("POST").body)


def test_slow_readers_do_not_add_up(setup: Setup) -> None:
    """What waits for a slow client in the worker is bounded for each of them: docs/operations.md says 256 KiB."""
    (worker,) = setup.plain.workers()
    count = 40
    many = [Connection(setup.plain.address, receive_buffer=64 * 1024) for _ in range(count)]
    try:
        with MemoryWatch(worker) as memory:
            for connection in many:
                connection.send(request_bytes(f"/bytes?n={64 * MIB}"))
            setup.origin.wait_for_in_flight(count)
            wait_until(lambda: stands_still(setup.origin), "nothing moves any more", 20, every=0.2)
        assert memory.growth <= count * 256 * 1024 + GROWTH, f"{memory.growth / count / 1024:.0f} KiB each"
    finally:
        for connection in many:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()


def stands_still(origin: Origin) -> bool:
    before = sum(link.sent for link in list(origin.servers[0].links))
    time.sleep(0.2)
    return before > 0 and before == sum(link.sent for link in list(origin.servers[0].links))
