"""Many clients of one ProxyWorker at once, and single ones that ask for more than their share."""
from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Address, Connection, fetch, request_bytes
from tests.support.client_sockets import shares
from tests.support.crowd import Crowd, browser_fields, pss_bytes
from tests.support.kept_load import KeptLoad
from tests.support.memory import MemoryWatch
from tests.support.origin import Origin
from tests.support.place import HOST
from tests.support.processes import descriptors, last_beat
from tests.support.rig import Rig
from tests.support.waiting import wait_until

HEAD_S = 1.5
SLOW_HEAD = b"GET / HTTP/1.1\r\nHost: slow.example\r\nX-Sl"
MOST_CLIENTS = 5000
CLIENT_BYTES = 2048
MIB = 1 << 20
# Seconds that others may wait, in the middle, while one client does its worst. Held up, they wait for all that it sent.
HELD_UP_S = 0.1


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """Host full.example has a pool of one server that takes one request at a time."""
    with Rig(tmp_path_factory.mktemp("crowds")) as rig:
        origin = rig.origin(2)
        text = pool_text(origin.addresses[:1])
        text += pool_text([f'{{ address = "{origin.addresses[1]}", max_connections = 1 }}'], name="full")
        text += '[[routes]]\nhosts = ["full.example"]\npool = "full"\n[[routes]]\npool = "web"\n'
        # Idle clients are to stay for as long as it takes to have asked for all the others.
        yield Setup(rig.balancer(text, PROXY, workers=2, extra=["--keep-alive", "600"]), origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.balancer.wait_until_idle()


def open_files(balancer: Balancer) -> int:
    return sum(descriptors(pid) for pid in balancer.workers())


def waits(address: Address, seconds: float) -> list[float]:
    """How long each request of a client took that asks for small things for so many seconds."""
    took = []
    until = time.monotonic() + seconds
    with Connection(address) as connection:
        while time.monotonic() < until:
            begin = time.monotonic()
            assert connection.request("/").status == 200
            took.append(time.monotonic() - begin)
            time.sleep(0.002)  # else the test would take the processor from what it measures
    return took


@pytest.mark.slow
def test_idle_clients_with_heads_of_their_own_cost_little_and_stay(setup: Setup) -> None:
    """No two clients send the same fields: what is kept of a client's last request counts for each of them."""
    balancer = setup.balancer
    count = min(MOST_CLIENTS, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 500)
    for number in range(1500):  # fills what is remembered of heads, whoever sent them
        assert fetch(balancer.address, "/", fields=browser_fields(-1 - number)).status == 200
    before, files = sum(map(pss_bytes, balancer.workers())), open_files(balancer)
    with Crowd(balancer.address, count) as crowd:
        grown = sum(map(pss_bytes, balancer.workers())) - before
        with KeptLoad(balancer.address, 4) as load:
            load.wait_for(500)
        assert load.failures == [] and crowd.ended() == 0
        counts = shares(balancer.workers(), balancer.address[1])
        assert sum(counts) >= count and max(counts) < 1.2 * min(counts), counts
        assert crowd.request() == count, "each of them is served again"
    wait_until(lambda: open_files(balancer) < files + 50, lambda: f"{open_files(balancer)} descriptors, {files} before")
    assert grown <= count * CLIENT_BYTES, f"{grown / count:.0f} bytes a client"


def test_a_thousand_slow_heads_are_all_answered_with_408_in_time(rig: Rig, setup: Setup) -> None:
    text = f"[proxy.timeouts]\nhead = {HEAD_S}\n" + pool_text(setup.origin.addresses[:1])
    balancer = rig.balancer(text, PROXY, workers=2, extra=["--keep-alive", "600"])
    count, files = 1000, open_files(balancer)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Connection(balancer.address)) for _ in range(count)]
        for connection in slow[:-20]:
            connection.send(SLOW_HEAD)
        begin = time.monotonic()
        for connection in slow[-20:]:
            connection.send(SLOW_HEAD)
        assert statistics.median(waits(balancer.address, HEAD_S / 2)) < HELD_UP_S
        poll = select.poll()  # select(2) knows no descriptors above 1024
        for connection in slow[-20:]:
            poll.register(connection.sock, select.POLLIN)
        assert poll.poll(0) == [] or time.monotonic() - begin >= HEAD_S, "it was not time yet"
        for connection in slow:
            assert connection.response().status == 408
    wait_until(lambda: open_files(balancer) < files + 50, "their descriptors are closed")


def test_clients_that_come_and_say_nothing_leave_nothing(setup: Setup) -> None:
    """As port scans and health checks of other balancers do: connect, and go in order, by a reset, or in half a line."""
    files = open_files(setup.balancer)
    for number in range(600):
        with Connection(setup.balancer.address) as connection:
            if number % 3 == 1:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif number % 3 == 2:
                connection.send(b"GET / HT")
    assert fetch(setup.balancer.address).status == 200
    wait_until(lambda: open_files(setup.balancer) < files + 10, "their descriptors are closed")


# One process sends requests without end, another one reads the answers: more at once than any client with one thread.
FLOOD = """
import os, socket, sys
connected = socket.create_connection((sys.argv[1], int(sys.argv[2])))
requests = b"GET / HTTP/1.1\\r\\nHost: %b\\r\\n\\r\\n" % sys.argv[3].encode() * 20000
if os.fork() == 0:
    while True:
        connected.sendall(requests)
room = bytearray(1 << 20)
connected.recv_into(room)
print("begun", flush=True)
while connected.recv_into(room):
    pass
"""


@contextlib.contextmanager
def flood(address: Address, host: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", FLOOD, address[0], str(address[1]), host], start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        yield
        assert process.poll() is None, "it went on all the time"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@pytest.mark.parametrize("host", ["web.example", "full.example"])
def test_a_client_that_pipelines_without_end_holds_nobody_up(rig: Rig, host: str) -> None:
    """Also when each request is answered at once, without waiting for a server (503: the pool is full)."""
    origin = rig.origin(2)
    text = pool_text(origin.addresses[:1])
    text += pool_text([f'{{ address = "{origin.addresses[1]}", max_connections = 1 }}'], name="full")
    text += '[[routes]]\nhosts = ["full.example"]\npool = "full"\n[[routes]]\npool = "web"\n'
    balancer = rig.balancer(text, PROXY, workers=1)
    with Connection(balancer.address) as holder, origin.released_at_end():
        holder.send(request_bytes("/hold", fields=[("Host", "full.example")]))
        origin.wait_for_in_flight(1)
        with flood(balancer.address, host):
            took = waits(balancer.address, 3)
    assert statistics.median(took) < HELD_UP_S, f"{statistics.median(took):.3f} s, at most {max(took):.3f} s"


def test_a_client_that_reads_no_answers_is_not_read_from(setup: Setup) -> None:
    """Pipelined requests wait in the client's own buffers, not in the worker's memory, and none is lost."""
    request, most, sent = request_bytes("/bytes?n=50000", fields=[("X-Pad", "p" * 4000)]), 10_000, 0
    watches = [MemoryWatch(pid) for pid in setup.balancer.workers()]
    with contextlib.ExitStack() as stack, Connection(setup.balancer.address) as connection:
        for watch in watches:
            stack.enter_context(watch)
        connection.sock.settimeout(1)
        rest = memoryview(request * most)
        try:
            while sent < len(rest):
                sent += connection.sock.send(rest[sent:sent + 65536])
        except TimeoutError:
            pass
        assert 0 < sent < len(rest), "it took all of them without having an answer taken"
        connection.sock.settimeout(20)
        for _ in range(sent // len(request)):
            assert len(connection.response().body) == 50_000
        connection.send(rest[sent:-(-sent // len(request)) * len(request)])  # the rest of the one that was cut, if any
        if sent % len(request):
            assert len(connection.response().body) == 50_000
    assert max(watch.growth for watch in watches) <= 3 * MIB


def test_fast_downloads_leave_time_for_the_others(rig: Rig) -> None:
    """Bodies that come as quickly as they can be sent: the loop must still go round."""
    origin = rig.origin(1)
    piece = 1 << 20
    pour = (
        "import socket, sys, threading\n"
        "listener = socket.create_server((sys.argv[1], 0))\nprint(listener.getsockname()[1], flush=True)\n"
        f"piece = bytes({piece})\n"
        "def serve(connected):\n"
        "    connected.recv(65536)\n"
        "    connected.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % (1 << 40))\n"
        "    while True:\n        connected.sendall(piece)\n"
        "while True:\n"
        "    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()\n"
    )
    drain = (
        "import socket, sys\nconnected = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "connected.sendall(b'GET / HTTP/1.1\\r\\nHost: bulk.example\\r\\n\\r\\n')\nroom = bytearray(1 << 20)\n"
        "while connected.recv_into(room):\n    pass\n"
    )
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen([sys.executable, "-c", pour, HOST], stdout=subprocess.PIPE, text=True,
                                                      stderr=subprocess.DEVNULL))
        stack.callback(server.kill)
        assert server.stdout is not None
        bulk = f"{HOST}:{int(server.stdout.readline())}"
        text = pool_text(origin.addresses) + pool_text([bulk], name="bulk")
        text += '[[routes]]\nhosts = ["bulk.example"]\npool = "bulk"\n[[routes]]\npool = "web"\n'
        balancer = rig.balancer(text, PROXY, workers=1)
        (worker,) = balancer.workers()
        for _ in range(2):
            client = stack.enter_context(subprocess.Popen([sys.executable, "-c", drain, HOST, str(balancer.address[1])]))
            stack.callback(client.kill)
        wait_until(lambda: sum(balancer.status().in_flight.values()) == 2, "both downloads run")
        took = waits(balancer.address, 3)
        assert statistics.median(took) < HELD_UP_S, f"{statistics.median(took):.3f} s, at most {max(took):.3f} s"
        beat = last_beat(worker)
        wait_until(lambda: last_beat(worker) > beat, "the worker's sign of life")


def processor_seconds(pid: int) -> float:
    """User and system time of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_worker_without_descriptors_waits_for_some_and_goes_on(rig: Rig) -> None:
    """RLIMIT_NOFILE falls short of worker_connections: the log says so, no processor is burnt, and it does not last."""
    balancer = rig.balancer(pool_text(rig.origin(1).addresses), PROXY, workers=1)
    (worker,) = balancer.workers()
    assert fetch(balancer.address).status == 200
    limit = descriptors(worker) + 12
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(Connection(balancer.address))
        wait_until(lambda: "clients wait or get 503" in balancer.log(), balancer.log)
        begun = processor_seconds(worker)
        time.sleep(1)
        assert processor_seconds(worker) - begun < 0.5, "it turns round and round"
    # The listening socket gives clients in their order (accept(2)): one that gets a 200 comes after all those that have gone.
    wait_until(lambda: fetch(balancer.address).status == 200, balancer.log)
    for _ in range(20):
        response = fetch(balancer.address, "/bytes?n=3")
        assert (response.status, len(response.body)) == (200, 3)
    assert balancer.workers() == [worker] and "Traceback" not in balancer.log()
    balancer.wait_until_idle()
