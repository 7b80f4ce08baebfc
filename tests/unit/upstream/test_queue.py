"""The queue in front of a pool: who is woken, and for which servers."""
from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from prefork_lb.clock import monotonic
from prefork_lb.errors import NoUsableServer, ProxyError, QueueFull, QueueTimeout
from prefork_lb.net.sockets import SocketStream
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, register
from prefork_lb.shared.waiting_line import WaitingLine, pool_spots
from prefork_lb.simulate.simulation import AnyRequest
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.queue import Queue, QueueRules
from tests.support.waiting import wait_until
from tests.unit.balance.candidates import REQUEST, new_policy
from tests.unit.proxy.loopback import Client
from tests.unit.upstream.parts import make_pool, new_server


def new_queue(ledger: Ledger, size: int = 10, timeout_s: float = 5.0) -> Queue:
    line = WaitingLine(ledger, pool_spots(ledger.segment.layout, 0))
    return Queue("web", line, ledger, QueueRules(size, timeout_s), SocketStream, monotonic)


@pytest.fixture
def queue(ledger: Ledger) -> Iterator[Queue]:
    queue = new_queue(ledger)
    yield queue
    queue.close()


class Waiter:
    """A request that waits in a thread, for one server after the other is given back."""

    def __init__(self, pool: Pool) -> None:
        self.lease: Lease | None = None
        self.error: ProxyError | None = None
        self.request = AnyRequest()
        self._pool = pool
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            self.lease = self._pool.lease(self.request, (), Client())
        except ProxyError as exc:
            self.error = exc

    def result(self) -> Lease | ProxyError | None:
        self._thread.join(10)
        return self.lease or self.error


def test_two_backups_that_become_free_at_once_serve_two_that_wait(ledger: Ledger, queue: Queue) -> None:
    servers = [new_server(0, limit=1), new_server(1, limit=1, backup=True), new_server(2, limit=1, backup=True)]
    pool = make_pool(ledger, servers, new_policy("first"), queue=queue)
    held = [pool.lease(REQUEST, ()) for _ in servers]
    waiters = []
    for count in (1, 2):
        waiters.append(Waiter(pool))
        wait_until(lambda: queue.length == count, f"{count} wait")  # noqa: B023
    # A release rings the first request only, which is why the one that takes its turn has to ring the next.
    with ledger.locked():
        for lease in held[1:]:
            ledger.totals[lease.server.slot] = 0
    queue.wake()
    assert {getattr(waiter.result(), "server", None) for waiter in waiters} == set(servers[1:])
    assert queue.length == 0


def test_a_request_knows_how_long_it_has_waited_and_one_that_did_not_wait_has_not(ledger: Ledger) -> None:
    queue = new_queue(ledger, timeout_s=0.02)
    pool = make_pool(ledger, [new_server(0, limit=1)], new_policy("least-connections"), queue=queue)
    at_once = AnyRequest()
    pool.lease(at_once, (), Client())
    waiter = Waiter(pool)
    assert isinstance(waiter.result(), QueueTimeout)
    assert at_once.queue_s == 0.0 and waiter.request.queue_s >= 0.02
    queue.close()


def test_requests_of_a_frozen_worker_do_not_fill_the_queue(
        segment: Segment, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefork_lb.shared.waiting_line._BELIEVED_MS", 3_600_000)  # however long it takes to the next look
    frozen = new_queue(Ledger(segment), size=2)
    queue = new_queue(ledger, size=2)
    deadline = queue.deadline()
    places = [frozen.join(deadline), frozen.join(deadline)]
    with pytest.raises(QueueFull):
        queue.join(deadline)
    monkeypatch.setattr("prefork_lb.shared.waiting_line._BELIEVED_MS", 0)
    frozen.tick()  # as if it had been a second ago
    mine = queue.join(deadline)
    queue.leave(mine)
    for place in places:
        frozen.leave(place)
    assert queue.length == 0
    frozen.close()
    queue.close()


def empty_pool(segment: Segment, ledger: Ledger, queue: Queue | None) -> tuple[Pool, Steering]:
    register(segment, ledger, [PoolEntry("web", [], may_be_empty=True)])
    pool = make_pool(ledger, [], new_policy("least-connections"), queue=queue, may_be_empty=True)
    return pool, Steering(segment, ledger, States(segment))


def test_a_request_of_an_empty_pool_waits_for_its_first_server(segment: Segment, ledger: Ledger, queue: Queue) -> None:
    pool, steering = empty_pool(segment, ledger, queue)
    waiters = [Waiter(pool) for _ in range(3)]
    wait_until(lambda: queue.length == 3, "three wait")
    steering.add_server("web", "127.0.0.1:8000", who="me")
    pool.tick()
    assert [getattr(waiter.result(), "server", None) for waiter in waiters] == [pool.servers[0]] * 3


def test_a_request_waits_also_while_all_servers_are_drained(segment: Segment, ledger: Ledger, queue: Queue) -> None:
    pool, steering = empty_pool(segment, ledger, queue)
    steering.add_server("web", "127.0.0.1:8000", who="me")
    steering.set_admin("web", "127.0.0.1:8000", Admin.DRAIN, "me")
    waiter = Waiter(pool)
    wait_until(lambda: queue.length == 1, "it waits")
    steering.set_admin("web", "127.0.0.1:8000", Admin.READY, "me")
    pool.tick()
    assert getattr(waiter.result(), "server", None) is pool.servers[0]


def test_without_a_queue_an_empty_pool_refuses_at_once(segment: Segment, ledger: Ledger) -> None:
    pool, _ = empty_pool(segment, ledger, None)
    with pytest.raises(NoUsableServer):
        pool.lease(REQUEST, (), Client())
