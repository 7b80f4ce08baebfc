"""Requests that wait for a server, over all workers."""
from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Iterator

import pytest

from prefork_lb.shared.finding import open_segment
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from tests.support.balancer import FRONT_ENDS, GTHREAD, PROXY, SYNC, Balancer, FrontEnd, pool_text, stopped
from tests.support.client import Burst, Connection, fetch
from tests.support.client_sockets import shares
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until


@pytest.fixture(params=FRONT_ENDS, ids=str)
def kind(request: pytest.FixtureRequest) -> FrontEnd:
    front_end: FrontEnd = request.param
    return front_end


@pytest.fixture(params=(GTHREAD, PROXY), ids=str)
def typical(request: pytest.FixtureRequest) -> FrontEnd:
    front_end: FrontEnd = request.param
    return front_end


@pytest.fixture
def origin(rig: Rig) -> Iterator[Origin]:
    origin = rig.origin(2)
    with origin.released_at_end():
        yield origin


def start(rig: Rig, origin: Origin, front_end: FrontEnd, size: int = 50, timeout: float = 120, more: str = "") -> Balancer:
    """Servers that take one request each; sync has a worker for each request of these tests."""
    servers = [f'{{ address = "{address}", max_connections = 1 }}' for address in origin.addresses]
    text = pool_text(servers) + more + f"[pools.web.queue]\nsize = {size}\ntimeout = {timeout}\n"
    balancer = rig.balancer(text, front_end, workers=16 if front_end is SYNC else 3)
    wait_until(lambda: fetch(balancer.address).status == 200, "it answers")
    balancer.wait_until_idle()
    return balancer


def pool(balancer: Balancer) -> dict[str, object]:
    return dict(balancer.status().instance["pools"][0])


def wait_for_waiting(balancer: Balancer, count: int) -> None:
    wait_until(lambda: pool(balancer)["waiting"] == count, lambda: f"{count} requests wait: {pool(balancer)}")


class Waiting:
    """Requests that are sent and not answered yet, each on its own connection; a context manager."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.connections: list[Connection] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, target: str = "/hold") -> Connection:
        connection = self._stack.enter_context(Connection(self.balancer.address, 30))
        connection.send(f"GET {target} HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n".encode())
        self.connections.append(connection)
        return connection

    def fill(self, origin: Origin) -> None:
        """Occupy every server."""
        for _ in origin.servers:
            self.send()
        origin.wait_for_in_flight(len(origin.servers))

    def line_up(self, count: int) -> None:
        """One after another, so that it is certain who came first."""
        for number in range(count):
            self.send(f"/hold?turn={number}")
            wait_for_waiting(self.balancer, number + 1)


def test_first_come_first_served_over_all_workers(rig: Rig, origin: Origin, kind: FrontEnd) -> None:
    balancer = start(rig, origin, kind)
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        waiting.line_up(10)
        assert len(balancer.status().workers) > 1
        begun = len(origin.arrivals)
        for number in range(10):
            origin.release(number % 2)
            wait_until(lambda: len(origin.arrivals) > begun + number, "the next one comes", every=0.002)  # noqa: B023
            origin.wait_for_in_flight(2)
        assert [arrival.target for arrival in origin.arrivals[begun:]] == [f"/hold?turn={number}" for number in range(10)]
        origin.release()
        assert [connection.response().status for connection in waiting.connections] == [200] * 12
    assert balancer.wait_until_idle().is_idle and pool(balancer)["waiting"] == 0
    assert all(server.most_in_flight == 1 for server in origin.servers)


def test_a_newcomer_goes_behind_those_who_wait(rig: Rig, origin: Origin) -> None:
    """Even when a server is free at that moment: whoever waits has been woken, and has not looked yet."""
    balancer = start(rig, origin, PROXY)
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        waiting.line_up(6)
        begun = len(origin.arrivals)
        origin.release()
        newcomer = waiting.send("/hold?turn=6")
        for turn in range(3):
            wait_until(lambda: len(origin.arrivals) >= begun + 2 * turn + 2, "two more come")  # noqa: B023
            origin.wait_for_in_flight(2)
            origin.release()
        wait_until(lambda: len(origin.arrivals) == begun + 7, "the newcomer comes, too")
        assert origin.arrivals[-1].target == "/hold?turn=6"
        origin.wait_for_in_flight(1)
        origin.release()
        assert newcomer.response().status == 200


def test_a_full_queue_refuses_at_once(rig: Rig, origin: Origin, typical: FrontEnd) -> None:
    balancer = start(rig, origin, typical, size=2)
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        waiting.line_up(2)
        refused = fetch(balancer.address)
        assert refused.status == 503 and refused.value("Retry-After") == "1"
        shown = pool(balancer)
        assert (shown["refused"], shown["tripped"]) == (1, ["queue", "max_connections"])
        wait_until(lambda: "2 requests wait already" in balancer.log(), balancer.log)


def test_refusals_are_summed_up_in_the_log_and_none_is_left_out(rig: Rig, origin: Origin, typical: FrontEnd) -> None:
    balancer = start(rig, origin, typical, size=1)
    refused = 300
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        waiting.line_up(1)
        begin = time.monotonic()
        assert {fetch(balancer.address).status for _ in range(refused)} == {503}
        lines = [line for line in balancer.log().splitlines() if "1 requests wait already" in line]
        assert len(lines) <= 3 * (time.monotonic() - begin + 1), "one a second of each worker"
    balancer.stop(signal.SIGTERM)  # what was counted last is written when a worker ends
    lines = [line for line in balancer.log().splitlines() if "1 requests wait already" in line]
    counted = [re.search(r"(\d+) more in", line) for line in lines]
    assert sum(int(found[1]) if found else 1 for found in counted) == refused


def test_who_waits_too_long_is_told_so(rig: Rig, origin: Origin, typical: FrontEnd) -> None:
    balancer = start(rig, origin, typical, timeout=0.3)
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        late = fetch(balancer.address)
        assert late.status == 503 and late.value("Retry-After") == "1"
        wait_until(lambda: "no server became free within 0.3 s" in balancer.log(), balancer.log)
        wait_for_waiting(balancer, 0)


def test_a_client_that_leaves_leaves_the_queue(rig: Rig, origin: Origin, kind: FrontEnd) -> None:
    balancer = start(rig, origin, kind)
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        waiting.line_up(3)
        waiting.connections[2].close()  # the first one in the line
        wait_for_waiting(balancer, 2)
        begun = len(origin.arrivals)
        origin.release()
        wait_until(lambda: len(origin.arrivals) == begun + 2, "the others come")
        assert sorted(arrival.target for arrival in origin.arrivals[begun:]) == ["/hold?turn=1", "/hold?turn=2"]


def test_a_killed_worker_takes_its_own_out_of_the_line_and_no_others(rig: Rig, origin: Origin) -> None:
    balancer = start(rig, origin, PROXY)
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        waiting.line_up(18)  # enough for each worker to have some
        claims, workers = balancer.status().workers, balancer.workers()
        clients = dict(zip(workers, shares(workers, balancer.address[1]), strict=True))
        victim = max(workers, key=lambda pid: clients[pid] - claims[pid])  # most of those that wait
        killed = clients[victim] - claims[victim]
        begun = len(origin.arrivals)
        os.kill(victim, signal.SIGKILL)
        balancer.wait_for_workers(3, without=[victim])
        wait_until(lambda: int(str(pool(balancer)["waiting"])) <= 18 - killed, "its own have gone")

        def have_come() -> bool:
            origin.release()
            return len(origin.arrivals) >= begun + 18 - killed

        wait_until(have_come, "all others have their turn")
        assert killed and len(origin.arrivals) == begun + 18 - killed
        wait_for_waiting(balancer, 0)


def first_in_line(waiting: Waiting) -> tuple[Connection, int]:
    """A request that waits in a worker that holds no server, and that worker."""
    balancer = waiting.balancer
    workers, port = balancer.workers(), balancer.address[1]
    held = balancer.status().workers
    with stopped([pid for pid in workers if held[pid]]):  # else one of them may take each request: it has just run
        before = shares(workers, port)
        first = waiting.send("/hold?turn=first")
        wait_for_waiting(balancer, 1)
        (worker,) = [pid for pid, had, has in zip(workers, before, shares(workers, port), strict=True) if has > had]
    return first, worker


@pytest.mark.parametrize("front_end", (SYNC, PROXY), ids=str)  # these have a worker that waits and holds no server
def test_a_frozen_worker_does_not_close_the_pool_to_its_siblings(rig: Rig, origin: Origin, front_end: FrontEnd) -> None:
    """Its request is the first in line, and nobody answers the bell. When the worker goes on, the request has its turn."""
    balancer = start(rig, origin, front_end)
    with Waiting(balancer) as waiting:
        waiting.fill(origin)
        first, victim = first_in_line(waiting)
        with stopped([victim]):
            for _ in range(4):  # some of them are the frozen worker's, which accepts no more
                waiting.send("/hold?turn=next")
            begun = len(origin.arrivals)
            origin.release()
            wait_until(lambda: len(origin.arrivals) > begun, "a sibling's request comes to a server")
            assert all(arrival.target == "/hold?turn=next" for arrival in origin.arrivals[begun:])

        def is_answered() -> bool:
            origin.release()  # what is held by now; the frozen worker's request may come to a server at any time
            return bool(select.select([first.sock], [], [], 0)[0])

        wait_until(is_answered, "the frozen worker's request has its turn")
        assert first.response().status == 200
        assert "/hold?turn=first" in [arrival.target for arrival in origin.arrivals]


def test_under_load_nothing_is_refused_and_no_server_gets_too_much(rig: Rig, origin: Origin, kind: FrontEnd) -> None:
    balancer = start(rig, origin, kind)
    with Load(balancer.address, 10, "/") as load:
        load.wait_for_successes(400, 30)
    assert load.failures == []
    assert all(server.most_in_flight == 1 for server in origin.servers)
    assert balancer.wait_until_idle().is_idle and pool(balancer)["waiting"] == 0


def test_the_pools_own_limit_refuses_at_once(rig: Rig, origin: Origin, typical: FrontEnd) -> None:
    balancer = start(rig, origin, typical, more="[pools.web.breaker]\nin_flight = 1\n")
    with Waiting(balancer) as waiting:
        waiting.send()
        origin.wait_for_in_flight(1)
        refused = fetch(balancer.address)
        assert refused.status == 503 and refused.value("Retry-After") == "1"
        wait_until(lambda: "breaker.in_flight" in balancer.log(), balancer.log)
        assert pool(balancer)["tripped"] == ["in_flight"] and pool(balancer)["refused"] == 1


def test_requests_of_an_empty_pool_wait_for_its_first_server(rig: Rig, origin: Origin, kind: FrontEnd) -> None:
    text = '[pools.web.discovery]\nfile = "nothing.json"\n[pools.web.queue]\ntimeout = 20\n'
    balancer = rig.balancer(text, kind, workers=3)
    segment = open_segment(balancer.status().segment)
    assert segment is not None
    with Burst(balancer.address, 3, "/") as burst:
        wait_for_waiting(balancer, 3)
        Steering(segment, Ledger(segment, takes_row=False), States(segment)).add_server("web", origin.addresses[0], who="test")
        assert burst.statuses() == [200] * 3
    segment.close()
