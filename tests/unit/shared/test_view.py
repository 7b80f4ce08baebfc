"""What tools see of an instance."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable

from prefork_lb.native.loader import compiled
from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import open_segment
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import PoolView, ServerView, WorkerView, view
from tests.unit.shared.processes import Child, Master, Signals, running
from tests.unit.shared.test_ledger import claim

WEB = PoolEntry("web", [ServerEntry("10.0.0.1:80", 2, 7, False), ServerEntry("unix:/run/b.sock", 1, 0, True)])


def test_an_instance_is_shown_as_it_is(segment: Segment, master: Master, signals: Signals) -> None:
    ledger = Ledger(segment)
    slots = register(segment, ledger, [WEB])["web"].slots
    for slot in (slots[0], slots[0], slots[1]):
        claim(ledger, slot)
    ledger.release(slots[0], failed=True)

    def work() -> None:
        mine = Ledger(segment)
        register(segment, mine, [WEB])
        claim(mine, slots[1])
        signals.send()
        signal.pause()

    with running(work) as (worker,):
        signals.wait()
        shown = view(segment)
        assert (shown.master, shown.segment, shown.generation) == (master.pid, segment.name, 2)
        assert (shown.reclaimed, shown.repairs) == (0, 0)
        assert shown.workers == [WorkerView(pid, 2, claims, compiled=compiled())
                                 for pid, claims in ((os.getpid(), 2), (worker.pid, 1))]
        well = {"state": "ready", "check": "none", "note": "", "checked_s": None, "ejected_s": 0.0, "usable": True,
                "times_ejected": 0, "checks_passed": 0, "checks_failed": 0, "numbers": None, "version": "ready-0-0"}
        assert shown.servers == [
            ServerView("web", "10.0.0.1:80", 2, 7, False, in_flight=1, requests=2, failures=1, weight_configured=2,
                       max_connections_configured=7, slot=slots[0], **well),
            ServerView("web", "unix:/run/b.sock", 1, 0, True, in_flight=2, requests=2, failures=0, slot=slots[1], **well),
        ]
        worker.kill()
    # Dead, not given back yet: not among the workers, still in the totals.
    shown = view(segment)
    assert [worker.pid for worker in shown.workers] == [os.getpid()]
    assert shown.servers[1].in_flight == 2
    ledger.reclaim_dead()
    shown = view(segment)
    assert (shown.reclaimed, shown.servers[1].in_flight, shown.servers[1].requests) == (1, 1, 2)


def test_a_pools_limits_are_shown_and_which_are_reached(segment: Segment) -> None:
    ledger = Ledger(segment)
    entry = PoolEntry("web", [ServerEntry("10.0.0.1:80", 1, 2, False), ServerEntry("10.0.0.2:80", 1, 2, False)], 3, 5, 1)
    slots = register(segment, ledger, [entry, PoolEntry("api", [ServerEntry("10.0.0.1:80", 1, 0, False)])])["web"].slots
    api, web = view(segment).pools
    assert api == PoolView("api", 0, 0, 0, 0, 0, 0, 0, False, [], 0, 0, 0, 0.0, None)
    assert web == PoolView("web", 0, 3, 0, 5, 0, 1, 0, False, [], 0, 0, 0, 0.0, None)
    for slot in (slots[0], slots[0], slots[1]):
        claim(ledger, slot)
    with ledger.locked():
        ledger.count_retry(0, 1)  # the number of the pool that was entered first
    assert view(segment).pools[1].tripped == ["in_flight", "retries"]
    claim(ledger, slots[1])
    assert view(segment).pools[1].tripped == ["in_flight", "retries", "max_connections"]
    segment.cells[segment.layout.column(at.C_ADMIN)][slots[0]] = 1  # drained: the others decide
    assert view(segment).pools[1].tripped[-1] == "max_connections"


def test_sessions_that_wait_for_their_server_are_counted_with_those_in_the_queue(segment: Segment) -> None:
    entry = PoolEntry("web", [ServerEntry("10.0.0.1:80", 1, 2, False), ServerEntry("10.0.0.2:80", 1, 2, False)], 0, 4)
    slots = register(segment, Ledger(segment), [entry])["web"].slots
    cells, layout = segment.cells, segment.layout
    cells[layout.pool(0) + at.P_WAITING] = 3
    for slot, count in zip(slots, (2, 5), strict=True):
        cells[layout.column(at.C_OWN_WAITING)][slot] = count
    [pool] = view(segment).pools
    assert (pool.waiting, pool.queue_size, pool.tripped) == (10, 4, []), "each line has its own limit"


def test_a_workers_clients_and_the_lag_of_its_loop_are_shown(segment: Segment) -> None:
    ledger = Ledger(segment)
    assert (view(segment).workers[0].clients, view(segment).workers[0].lag_s) == (None, None)
    ledger.note_clients(0)
    ledger.note_lag(0.0)
    assert (view(segment).workers[0].clients, view(segment).workers[0].lag_s) == (0, 0.0)
    ledger.note_lag(0.25)
    ledger.note_clients(-1)
    ledger.note_lingering(3)
    assert (view(segment).workers[0].clients, view(segment).workers[0].lag_s) == (3, 0.25)


def test_workers_that_end_are_told_from_those_that_die(segment: Segment) -> None:
    survivor = Ledger(segment)
    Child(lambda: Ledger(segment).note_end()).wait()
    survivor.reclaim_dead()
    for _ in range(2):
        Child(lambda: Ledger(segment)).wait()
        survivor.reclaim_dead()
    shown = view(segment)
    assert (shown.workers_started, shown.workers_ended, shown.workers_died) == (4, 1, 2)


def test_looking_takes_no_lock(segment: Segment) -> None:
    """Also while a worker that is stopped holds it, a tool answers."""
    ledger = Ledger(segment)
    ledger.acquire()
    assert Child(lambda: view(segment)).wait() == 0
    ledger.release_lock()


def test_a_segment_without_a_master_has_none_to_show(segment: Segment, master: Master) -> None:
    master.kill()
    assert view(segment).master == 0


def test_the_newest_master_is_shown(segment: Segment, master: Master, new_master: Callable[[], Master]) -> None:
    successor = new_master()
    attach_or_create(successor.pid, Layout(1, 1, 1), master.pid)
    expected = successor if successor.started > master.started else max(master, successor, key=lambda m: (m.started, m.pid))
    assert view(segment).master == expected.pid


def test_a_tool_can_open_look_and_close(segment: Segment) -> None:
    register(segment, Ledger(segment), [WEB])
    opened = open_segment(segment.name)
    assert opened is not None
    assert [server.address for server in view(opened).servers] == ["10.0.0.1:80", "unix:/run/b.sock"]
    opened.close()
