"""Sessions that wait for their server: each server has a line of its own."""
from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from prefork_lb.clock import Clock, ManualClock, monotonic
from prefork_lb.errors import QueueTimeout, SessionRefused
from prefork_lb.net.sockets import SocketStream
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.waiting_line import WaitingLine, pool_spots, server_spots
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.queue import Queue, QueueRules
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.route import RouteSticky
from prefork_lb.upstream.sticky.session import OnFailure, Session, SessionRules
from tests.support.waiting import wait_until
from tests.unit.balance.candidates import REQUEST, new_policy
from tests.unit.proxy.loopback import Client
from tests.unit.shared.processes import Child, Master
from tests.unit.upstream.parts import make_pool, new_server


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    master = Master()
    yield Ledger(attach_or_create(master.pid, Layout(4, 8, 8, own_lines=1)))
    remove_segment(master.pid)
    master.kill()


def new_pool(ledger: Ledger, timeout_s: float = 5.0, limits: tuple[int, ...] = (1, 1), clock: Clock = monotonic) -> Pool:
    servers = [new_server(slot, limit=limit) for slot, limit in enumerate(limits)]
    layout, rules = ledger.segment.layout, QueueRules(10, timeout_s)
    line = WaitingLine(ledger, pool_spots(layout, 0))
    for server in servers:
        own = WaitingLine(ledger, server_spots(layout, 0, server.slot), line.ringer)
        server.own_queue = Queue("web", own, ledger, rules, SocketStream, clock)
    sticky = RouteSticky([], SessionRules(OnFailure.WAIT, 10_000), "id", "")
    return make_pool(ledger, servers, new_policy("least-connections"), sticky=sticky,
                     queue=Queue("web", line, ledger, rules, SocketStream, clock))


def waiting(ledger: Ledger) -> list[int]:
    """Requests in the own lines of the two servers."""
    layout = ledger.segment.layout
    return ledger.segment.cells[layout.column(at.C_OWN_WAITING)].tolist()[:2]


def waiting_for_any(ledger: Ledger) -> int:
    """Requests in the pool's line."""
    return ledger.segment.cells[ledger.segment.layout.pool(0) + at.P_WAITING]


def drain(ledger: Ledger, is_over: bool) -> None:
    """Drain the first server; `is_over`: so long ago that it keeps sessions no more."""
    states = States(ledger.segment)
    with ledger.locked():
        states.set_admin(0, Admin.DRAIN)
        states.drained[0] -= 10_000 if is_over else 0


class Visitor:
    """A session's request, in a thread."""

    def __init__(self, pool: Pool, server: Server | None) -> None:
        self.lease: Lease | None = None
        self.error: Exception | None = None
        self._pool, self._server = pool, server
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.lease = self._pool.lease(REQUEST, (), Client(), Session(self._server))
        except Exception as exc:
            self.error = exc

    def end(self) -> Lease:
        self._thread.join(10)
        assert self.lease is not None, self.error
        return self.lease


def test_sessions_wait_for_their_own_server_in_order_and_hold_up_no_other(ledger: Ledger) -> None:
    pool = new_pool(ledger)
    one, other = pool.servers
    held = pool.lease(REQUEST, (), Client(), Session(one))
    first = Visitor(pool, one)
    wait_until(lambda: waiting(ledger) == [1, 0], "the first waits")
    second = Visitor(pool, one)
    wait_until(lambda: waiting(ledger) == [2, 0], "the second waits")
    # Neither a session of the other server nor a newcomer waits behind them, and the newcomer does not take their server.
    elsewhere = pool.lease(REQUEST, (), Client(), Session(other))
    assert elsewhere.server is other
    elsewhere.succeed(reusable=False)
    newcomer = pool.lease(REQUEST, (), Client(), Session(None))
    assert newcomer.server is other
    held.succeed(reusable=False)
    assert first.end().server is one and waiting(ledger) == [1, 0]
    first.end().succeed(reusable=False)
    assert second.end().server is one and waiting(ledger) == [0, 0]
    pool.close()


def test_a_newcomer_leaves_what_becomes_free_to_the_sessions_that_wait(ledger: Ledger) -> None:
    pool = new_pool(ledger, limits=(1, 1))
    one, other = pool.servers
    held = [pool.lease(REQUEST, (), Client(), Session(server)) for server in (one, other)]
    session = Visitor(pool, one)
    wait_until(lambda: waiting(ledger) == [1, 0], "the session waits")
    newcomer = Visitor(pool, None)
    wait_until(lambda: waiting_for_any(ledger) == 1, "the newcomer waits")
    held[0].succeed(reusable=False)
    assert session.end().server is one
    held[1].succeed(reusable=False)
    wait_until(lambda: pool.tick() or newcomer.lease is not None, "the newcomer has the other server")
    assert newcomer.end().server is other
    pool.close()


def test_a_session_waits_for_a_server_that_is_down_until_its_time_is_over(ledger: Ledger) -> None:
    pool = new_pool(ledger, timeout_s=0.2)
    with ledger.locked():
        States(ledger.segment).set_admin(0, Admin.MAINTENANCE)
    with pytest.raises(QueueTimeout):
        pool.lease(REQUEST, (), Client(), Session(pool.servers[0]))
    assert waiting(ledger) == [0, 0]
    pool.close()


def test_a_session_gets_its_server_when_that_is_back(ledger: Ledger) -> None:
    pool, states = new_pool(ledger), States(ledger.segment)
    with ledger.locked():
        states.set_admin(0, Admin.MAINTENANCE)
    visitor = Visitor(pool, pool.servers[0])
    wait_until(lambda: waiting(ledger) == [1, 0], "it waits")
    with ledger.locked():
        states.set_admin(0, Admin.READY)
    wait_until(lambda: pool.tick() or visitor.lease is not None, "it has its server")
    assert visitor.end().server is pool.servers[0]
    pool.close()


def test_a_retry_does_not_wait(ledger: Ledger) -> None:
    pool = new_pool(ledger)
    with pytest.raises(SessionRefused):
        pool.lease(REQUEST, (pool.servers[0],), session=Session(pool.servers[0]))
    pool.close()


def test_a_session_moves_when_its_drained_server_keeps_sessions_no_more(ledger: Ledger) -> None:
    pool = new_pool(ledger)
    drain(ledger, is_over=True)
    assert pool.lease(REQUEST, (), Client(), Session(pool.servers[0])).server is pool.servers[1]
    pool.close()


def test_a_session_that_must_move_waits_like_a_new_visitor_while_the_others_are_full(ledger: Ledger) -> None:
    pool = new_pool(ledger)
    one, other = pool.servers
    drain(ledger, is_over=True)
    held = pool.lease(REQUEST, (), Client(), Session(None))
    moving = Visitor(pool, one)
    wait_until(lambda: waiting_for_any(ledger) == 1, lambda: f"it waits; {moving.error}")
    second = Visitor(pool, one)
    wait_until(lambda: waiting_for_any(ledger) == 2, "so does the next")
    assert waiting(ledger) == [0, 0]
    held.succeed(reusable=False)
    assert moving.end().server is other and second.lease is None
    moving.end().succeed(reusable=False)
    assert second.end().server is other and waiting_for_any(ledger) == 0
    pool.close()


def test_a_session_does_not_overtake_new_visitors_when_it_must_move(ledger: Ledger) -> None:
    pool = new_pool(ledger)
    one, other = pool.servers
    drain(ledger, is_over=True)
    held = pool.lease(REQUEST, (), Client(), Session(None))
    newcomer = Visitor(pool, None)
    wait_until(lambda: waiting_for_any(ledger) == 1, "the newcomer waits")
    with ledger.locked():
        ledger.release_locked(other.slot, False)  # nobody is rung
    moving = Visitor(pool, one)
    assert newcomer.end().server is other and moving.lease is None and held.is_open
    newcomer.end().succeed(reusable=False)
    assert moving.end().server is other
    pool.close()


def test_sessions_that_wait_for_their_server_move_when_that_keeps_them_no_more(ledger: Ledger) -> None:
    pool = new_pool(ledger)
    one, other = pool.servers
    held = [pool.lease(REQUEST, (), Client(), Session(server)) for server in (one, other)]
    drain(ledger, is_over=False)
    moving = [Visitor(pool, one)]
    wait_until(lambda: waiting(ledger) == [1, 0], "the first waits for its server")
    moving.append(Visitor(pool, one))
    wait_until(lambda: waiting(ledger) == [2, 0], "so does the second")
    drain(ledger, is_over=True)
    wait_until(lambda: pool.tick() or waiting_for_any(ledger) == 2, "both wait for any server")
    assert waiting(ledger) == [0, 0]
    held[1].succeed(reusable=False)
    wait_until(lambda: any(visitor.lease for visitor in moving), "one has the other server")
    [first] = [visitor for visitor in moving if visitor.lease]
    assert first.end().server is other
    first.end().succeed(reusable=False)
    assert {visitor.end().server for visitor in moving} == {other}
    pool.close()


def test_a_session_in_the_pool_s_line_waits_for_its_own_server_when_that_is_ready_again(ledger: Ledger) -> None:
    pool = new_pool(ledger)
    one, _ = pool.servers
    held = [pool.lease(REQUEST, (), Client(), Session(server)) for server in pool.servers]
    drain(ledger, is_over=True)
    visitor = Visitor(pool, one)
    wait_until(lambda: waiting_for_any(ledger) == 1, lambda: f"it waits for any server; {visitor.error}")
    with ledger.locked():
        States(ledger.segment).set_admin(0, Admin.READY)
    wait_until(lambda: pool.tick() or waiting(ledger) == [1, 0], lambda: f"it waits for its own; {visitor.error}")
    held[0].succeed(reusable=False)
    assert visitor.end().server is one
    pool.close()


def test_a_session_that_moves_to_the_pool_s_line_does_not_wait_anew(ledger: Ledger) -> None:
    clock = ManualClock(monotonic())
    pool = new_pool(ledger, clock=clock)
    held = [pool.lease(REQUEST, (), Client(), Session(server)) for server in pool.servers]
    visitor = Visitor(pool, pool.servers[0])
    wait_until(lambda: waiting(ledger) == [1, 0], "it waits for its server")
    clock.advance(5)
    drain(ledger, is_over=True)
    wait_until(lambda: pool.tick() or visitor.error is not None, "its time is over", seconds=4)
    assert isinstance(visitor.error, QueueTimeout)
    assert len(held) == 2 and waiting_for_any(ledger) == 0
    pool.close()


def test_the_last_session_of_a_server_s_line_wakes_the_pool_s_when_there_is_room_left(ledger: Ledger) -> None:
    pool = new_pool(ledger, limits=(2, 1))
    one, other = pool.servers
    held = [pool.lease(REQUEST, (), Client(), Session(server)) for server in (one, one, other)]
    session = Visitor(pool, one)
    wait_until(lambda: waiting(ledger) == [1, 0], "the session waits")
    newcomer = Visitor(pool, None)
    wait_until(lambda: waiting_for_any(ledger) == 1, "the newcomer waits")
    with ledger.locked():
        ledger.release_locked(one.slot, False)  # nobody is rung
    held[1].succeed(reusable=False)
    assert session.end().server is one
    assert newcomer.end().server is one
    pool.close()


def test_what_a_dead_worker_leaves_in_a_line_goes_with_its_row(ledger: Ledger) -> None:
    segment = ledger.segment

    def wait_and_die() -> None:
        mine = Ledger(segment)
        with mine.locked():
            WaitingLine(mine, server_spots(segment.layout, 0, 0)).join(1, 1 << 50)
        os._exit(7)

    Child(wait_and_die).wait()
    assert waiting(ledger) == [1, 0]
    ledger.reclaim_dead()
    assert waiting(ledger) == [0, 0]
    line = WaitingLine(ledger, server_spots(segment.layout, 0, 0))
    with ledger.locked():
        assert line.is_first(line.join(1, 1 << 50))
