"""The line of those who wait, over all workers."""
from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Callable

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import now_ms
from prefork_lb.shared.waiting_line import WaitingLine, pool_spots, server_spots
from tests.unit.shared.processes import Child, Master, Signals, running


def new_line(ledger: Ledger, number: int = 0) -> WaitingLine:
    return WaitingLine(ledger, pool_spots(ledger.segment.layout, number))


def new_bell() -> tuple[socket.socket, int]:
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bell.bind("")
    bell.settimeout(2)
    return bell, int(bell.getsockname()[1:], 16) + 1


def join(ledger: Ledger, line: WaitingLine, bell: int = 1, patience_ms: int = 60_000) -> int:
    with ledger.locked():
        return line.join(bell, now_ms() + patience_ms)


def leave(ledger: Ledger, line: WaitingLine, ticket: int) -> None:
    with ledger.locked():
        line.leave(ticket, 0.5)


def first_of(line: WaitingLine, tickets: list[int]) -> list[int]:
    return [ticket for ticket in tickets if line.is_first(ticket)]


def test_the_first_is_the_first_over_all_workers(segment: Segment) -> None:
    ledgers = [Ledger(segment), Ledger(segment)]
    lines = [new_line(ledger) for ledger in ledgers]
    order = [0, 1, 1, 0, 1]
    tickets = [join(ledgers[worker], lines[worker]) for worker in order]
    assert tickets == [1, 2, 3, 4, 5] and lines[0].length == lines[1].length == 5
    for turn, worker in enumerate(order):
        assert all(first_of(line, tickets) == [tickets[turn]] for line in lines)
        leave(ledgers[worker], lines[worker], tickets[turn])
    assert lines[0].length == 0 and first_of(lines[0], tickets) == []


def test_who_leaves_from_the_middle_holds_nobody_up(segment: Segment) -> None:
    ledger = Ledger(segment)
    line = new_line(ledger)
    tickets = [join(ledger, line) for _ in range(3)]
    leave(ledger, line, tickets[1])
    assert line.length == 2 and line.is_first(tickets[0])
    leave(ledger, line, tickets[0])
    assert line.is_first(tickets[2])


def test_the_bell_of_the_first_rings(segment: Segment) -> None:
    ledgers = [Ledger(segment), Ledger(segment)]
    lines = [new_line(ledger) for ledger in ledgers]
    bells = [new_bell(), new_bell()]
    tickets = [join(ledgers[worker], lines[worker], bells[worker][1]) for worker in (0, 1)]
    lines[1].ring()
    assert bells[0][0].recv(9) == b"!"
    leave(ledgers[0], lines[0], tickets[0])
    lines[0].ring()
    assert bells[1][0].recv(9) == b"!"
    bells[1][0].setblocking(False)
    with pytest.raises(BlockingIOError):
        bells[1][0].recv(9)
    for bell, _ in bells:
        bell.close()
    lines[0].ring()  # to somebody who has gone
    leave(ledgers[1], lines[1], tickets[1])
    lines[0].ring()  # to nobody


def test_a_worker_without_descriptors_still_rings(segment: Segment) -> None:
    """A release rings. If the ring failed, the response of the request that is over would fail with it."""
    ledger = Ledger(segment)
    line = new_line(ledger)
    bell, number = new_bell()
    join(ledger, line, number)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        line.ring()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert bell.recv(9) == b"!"
    line.close()
    line.ring()  # the last exchange of a worker may be over after it let go of its pools
    bell.close()


def test_a_worker_rings_for_its_own_only(segment: Segment) -> None:
    ledgers = [Ledger(segment), Ledger(segment)]
    lines = [new_line(ledger) for ledger in ledgers]
    bell, number = new_bell()
    join(ledgers[0], lines[0], number)
    join(ledgers[1], lines[1])
    bell.setblocking(False)
    lines[1].tick()
    with pytest.raises(BlockingIOError):
        bell.recv(9)
    lines[0].tick()
    assert bell.recv(9) == b"!"
    for line in lines:
        line.close()
        line.close()


def test_a_dead_worker_leaves_the_line(segment: Segment, signals: Signals) -> None:
    ledger = Ledger(segment)
    line = new_line(ledger)

    def work() -> None:
        mine = Ledger(segment)
        theirs = new_line(mine)
        join(mine, theirs)
        join(mine, theirs)
        signals.send()
        signal.pause()

    with running(work) as (worker,):
        signals.wait()
        ticket = join(ledger, line)
        assert line.length == 3 and not line.is_first(ticket)
        worker.kill()
        assert ledger.reclaim_dead().workers == 1
    assert line.length == 1 and line.is_first(ticket)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The line's clock, in seconds."""
    clock = ManualClock(1000.0)
    monkeypatch.setattr("prefork_lb.shared.waiting_line.now_ms", lambda: int(clock() * 1000))
    return clock


def test_requests_of_a_worker_that_does_not_run_are_passed_over_until_it_does(segment: Segment, clock: ManualClock) -> None:
    frozen, running = Ledger(segment), Ledger(segment)
    frozen_line, line = new_line(frozen), new_line(running)
    bell, number = new_bell()
    with frozen.locked():
        first = frozen_line.join(1, 1_060_000)
    with running.locked():
        second = line.join(number, 1_060_000)
    clock.advance(0.9)
    line.tick()  # as four times a second; the frozen worker does not
    assert not line.is_first(second) and line.answering == 2
    clock.advance(0.2)
    line.tick()
    assert bell.recv(9) == b"!", "its own worker wakes it"
    assert line.is_first(second) and line.length == 2 and line.answering == 1
    assert frozen_line.is_first(first) and not line.is_first(second), "the worker runs again: its place is kept"
    bell.close()
    line.close()


def test_a_request_without_patience_left_holds_up_nobody(segment: Segment, clock: ManualClock) -> None:
    """Its worker may be busy with something else when it should leave."""
    ledgers = [Ledger(segment), Ledger(segment)]
    lines = [new_line(ledger) for ledger in ledgers]
    with ledgers[0].locked():
        late = lines[0].join(1, 1_000_500)
        behind = lines[0].join(2, 1_060_000)
    with ledgers[1].locked():
        last = lines[1].join(3, 1_060_000)
    clock.advance(0.6)
    assert lines[1].is_first(last)
    lines[0].tick()  # which shows the next one
    assert not lines[0].is_first(late) and lines[0].is_first(behind) and not lines[1].is_first(last)


def test_pools_have_lines_of_their_own(segment: Segment) -> None:
    ledger = Ledger(segment)
    lines = [new_line(ledger, number) for number in (0, 3)]
    tickets = [join(ledger, line) for line in lines]
    assert [line.length for line in lines] == [1, 1]
    assert all(line.is_first(ticket) for line, ticket in zip(lines, tickets, strict=True))


def test_refusals_are_counted(segment: Segment) -> None:
    ledger = Ledger(segment)
    line = new_line(ledger)
    with ledger.locked():
        line.count_refusal()
    assert segment.cells[segment.layout.pool(0) + at.P_REFUSED] == 1


def test_servers_have_lines_of_their_own_over_all_workers(new_master: Callable[[], Master]) -> None:
    segment = attach_or_create(new_master().pid, Layout(4, 8, 8, own_lines=1))
    layout, workers = segment.layout, [Ledger(segment), Ledger(segment)]
    lines = [[WaitingLine(ledger, server_spots(layout, 0, slot)) for slot in (2, 7)] for ledger in workers]
    of_pool = new_line(workers[0])
    first, second = join(workers[0], lines[0][0]), join(workers[1], lines[1][0])
    other, waits = join(workers[1], lines[1][1]), join(workers[0], of_pool)
    assert [line.length for line in (*lines[0], of_pool)] == [2, 1, 1]
    assert lines[0][0].is_first(first) and not lines[1][0].is_first(second)
    assert lines[1][1].is_first(other) and of_pool.is_first(waits)
    assert lines[1][0].is_answered
    leave(workers[0], lines[0][0], first)
    assert lines[1][0].is_first(second)
    leave(workers[1], lines[1][0], second)
    assert lines[0][0].length == 0 and not lines[0][0].is_answered


def test_a_line_rings_by_the_socket_of_another_one(new_master: Callable[[], Master]) -> None:
    segment = attach_or_create(new_master().pid, Layout(4, 8, 8, own_lines=1))
    ledger = Ledger(segment)
    of_pool = new_line(ledger)
    own = WaitingLine(ledger, server_spots(segment.layout, 0, 1), of_pool.ringer)
    bell, number = new_bell()
    join(ledger, own, number)
    own.ring()
    assert bell.recv(16) == b"!"
    own.close()
    assert of_pool.ringer.fileno() >= 0
    of_pool.close()
    bell.close()


def test_lines_of_servers_are_counted_anew_when_a_worker_has_died(new_master: Callable[[], Master]) -> None:
    segment = attach_or_create(new_master().pid, Layout(4, 8, 8, own_lines=1))
    ledger = Ledger(segment)

    def wait_and_die() -> None:
        mine = Ledger(segment)
        join(mine, WaitingLine(mine, server_spots(segment.layout, 0, 3)))
        os._exit(7)

    line = WaitingLine(ledger, server_spots(segment.layout, 0, 3))
    ticket = join(ledger, line)
    Child(wait_and_die).wait()
    assert line.length == 2
    ledger.reclaim_dead()
    assert line.length == 1 and line.is_first(ticket)
