"""Client connections are divided evenly among ProxyWorkers, whatever goes on, and nobody waits for that."""
from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import processes
from tests.support.balancer import GUNICORN, PROXY, SETTINGS, Balancer, answers, pool_text, stopped
from tests.support.client import Connection, request_bytes
from tests.support.client_sockets import connections, shares
from tests.support.kept_load import MIXED, KeptLoad
from tests.support.origin import Origin
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.standstill import undisturbed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.alone

# From all connections at one worker to as many at the other: on a busy machine some still go to the first, as nobody waits.
CAUGHT_UP = 0.5
YIELD_S = 0.01


@contextlib.contextmanager
def kept(balancer: Balancer, count: int) -> Iterator[list[Connection]]:
    """So many connections, made one after the other, each used once."""
    with contextlib.ExitStack() as stack:
        many = []
        for _ in range(count):
            many.append(stack.enter_context(Connection(balancer.address)))
            assert many[-1].request("/").status == 200
        yield many


def new_balancer(rig: Rig, workers: int = 2, origin: Origin | None = None, **more: Any) -> Balancer:
    """A balancer all of whose workers accept connections by now: joining the instance comes a little earlier."""
    balancer = rig.balancer(pool_text((origin or rig.origin(2)).addresses), PROXY, workers=workers, **more)
    wait_until_all_accept(balancer)
    return balancer


def wait_until_all_accept(balancer: Balancer) -> None:
    before = sum(held(balancer))
    with contextlib.ExitStack() as stack:
        def all_accept() -> bool:
            stack.enter_context(Connection(balancer.address))
            return min(counted(balancer)) > 0

        def told() -> str:
            return f"all accept: {counted(balancer)} {[processes.doing(pid) for pid in balancer.workers()]}"

        wait_until(all_accept, told)
    wait_until(lambda: sum(held(balancer)) <= before, "those connections have ended")


class Evenness:
    """How evenly two workers may be expected to divide connections from now on, on a machine that does other things as well.

    A worker leaves a connection to its sibling for 10 ms. Where the machine has no CPU for the sibling in that time, the worker
    takes the connection: one for each 10 ms that a worker was ready to run and did not.
    """

    def __init__(self, balancer: Balancer) -> None:
        self._waited = {pid: processes.waited_for_cpu(pid) for pid in balancer.workers()}

    def holds(self, counts: list[int], within: float = 0.2) -> bool:
        waited_s = sum(processes.waited_for_cpu(pid) - before for pid, before in self._waited.items())
        return max(counts) < (1 + within) * min(counts) + int(waited_s / YIELD_S)


def counted(balancer: Balancer) -> list[int]:
    return shares(balancer.workers(), balancer.address[1])


def held(balancer: Balancer) -> list[int]:
    """Also those that the client has closed: until a worker has seen to it, they count in its comparison with its sibling."""
    return [connections(pid, balancer.address[1]) for pid in balancer.workers()]


def test_connections_under_load_are_divided_evenly(rig: Rig) -> None:
    """Those of the load as well, which came all at once."""
    balancer = new_balancer(rig)
    evenness = Evenness(balancer)
    with KeptLoad(balancer.address, 8, MIXED) as load, kept(balancer, 64):
        load.wait_for(100)
        counts = counted(balancer)
        assert sum(counts) == 72 and evenness.holds(counts), counts
    assert load.failures == []


@pytest.mark.parametrize("turn", range(3))
def test_connections_that_come_at_once_are_divided_evenly(rig: Rig, turn: int) -> None:
    """Also when each of them has a request that lasts."""
    origin = rig.origin(2)
    balancer = new_balancer(rig, origin=origin)
    evenness = Evenness(balancer)
    with contextlib.ExitStack() as stack, origin.released_at_end():
        many = [stack.enter_context(Connection(balancer.address)) for _ in range(64)]
        for connection in many:
            connection.send(request_bytes("/hold"))
        origin.wait_for_in_flight(64)
        counts = counted(balancer)
        assert sum(counts) == 64 and evenness.holds(counts), counts
        origin.release()
        assert [connection.response().status for connection in many] == [200] * 64


def test_a_new_worker_catches_up(rig: Rig) -> None:
    balancer = new_balancer(rig)
    with kept(balancer, 40):
        victim = balancer.workers()[0]
        balancer.kill_worker(victim)
        balancer.wait_for_workers(2, without=[victim])
        wait_until_all_accept(balancer)
        evenness = Evenness(balancer)
        with kept(balancer, 60):
            counts = counted(balancer)
            assert evenness.holds(counts, CAUGHT_UP), counts


def test_connections_that_end_are_made_up_for(rig: Rig) -> None:
    """Nearly all the clients of one worker leave; the next ones go there."""
    balancer = new_balancer(rig)
    first, other = balancer.workers()
    with stopped([other]), kept(balancer, 32), stopped([first]):
        os.kill(other, signal.SIGCONT)
        with kept(balancer, 32):
            os.kill(first, signal.SIGCONT)
            assert counted(balancer) == [32, 32]
        wait_until(lambda: held(balancer) == [32, 0], "the clients of the second have left")
        evenness = Evenness(balancer)
        with kept(balancer, 32):
            counts = counted(balancer)
            assert sum(counts) == 64 and evenness.holds(counts, CAUGHT_UP), counts


def test_nobody_waits_for_a_worker_that_stands_still(rig: Rig) -> None:
    """It has the fewest connections and takes none: the other one leaves each of them to it for 10 ms, and no longer."""
    balancer = new_balancer(rig)
    frozen, alive = balancer.workers()

    def now() -> float:
        """Seconds in which nothing was done for a connection: neither here, where the servers are as well, nor in the worker."""
        return time.monotonic() - processes.threads_busy(os.getpid()) - processes.threads_busy(alive)

    def are_served() -> None:
        begin = now()
        with kept(balancer, 200):
            waited = now() - begin
            assert shares([alive], balancer.address[1]) == [200]
        assert waited < 200 * 1.5 * YIELD_S, f"{waited / 200:.4f} s a connection"

    with stopped([frozen]):
        undisturbed(are_served, 0.5)


def test_connections_of_all_listeners_count(rig: Rig) -> None:
    port = free_port()
    balancer = new_balancer(rig, extra=["-b", f"{HOST}:{port}"])
    ports = [int(found) for found in re.findall(rf"{re.escape(HOST)}:(\d+)", balancer.log().partition("Using worker")[0])]
    assert len(ports) == 2 and port in ports
    evenness = Evenness(balancer)
    with contextlib.ExitStack() as stack:
        for number in range(64):
            connection = stack.enter_context(Connection((HOST, ports[number % 2])))
            assert connection.request("/").status == 200
        counts = [sum(pair) for pair in zip(*(shares(balancer.workers(), one) for one in ports), strict=True)]
        assert sum(counts) == 64 and evenness.holds(counts), counts


def test_with_reuse_port_every_worker_serves_its_share(rig: Rig) -> None:
    """gunicorn's `reuse_port`: each worker listens by itself, and the kernel divides the connections by their addresses."""
    balancer = rig.new_balancer(pool_text(rig.origin(1).addresses), PROXY)
    address = (HOST, free_port())
    arguments = ["-c", str(SETTINGS), "-w", "2", "-b", f"{HOST}:{address[1]}", "--reuse-port", "prefork_lb:app"]
    with balancer.log_file.open("ab") as log:
        process = subprocess.Popen([*GUNICORN, *arguments], cwd=balancer.folder, env=balancer.environment(), stdout=log,
                                   stderr=log)
    try:
        wait_until(lambda: [answers(address, False, b"") for _ in range(20)] == [True] * 20, balancer.log, 20, every=0.1)
        wait_until(lambda: len(processes.children(process.pid)) == 2, "two workers")

        def both_listen() -> bool:
            with contextlib.ExitStack() as stack:
                for _ in range(16):
                    stack.enter_context(Connection(address))
                return min(shares(processes.children(process.pid), address[1])) > 0

        wait_until(both_listen, balancer.log)
        with contextlib.ExitStack() as stack:
            many = [stack.enter_context(Connection(address)) for _ in range(128)]
            for connection in many:
                connection.send(request_bytes("/bytes?n=10"))
            assert [len(connection.response().body) for connection in many] == [10] * 128
            counts = shares(processes.children(process.pid), address[1])
            assert sum(counts) == 128 and min(counts) > 20, counts
    finally:
        process.terminate()
        assert process.wait(20) == 0
