"""The controller is kept running by the workers: started, replaced, and not started over and over again. Real processes."""
from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from prefork_lb.controller.launch import Launcher
from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from tests.support.balancer import hold_still
from tests.support.waiting import wait_until
from tests.unit.shared.processes import Master

ENDS_AT_ONCE = (sys.executable, "-S", "-c", "raise SystemExit(7)")
NEVER_WORKS = (sys.executable, "-S", "-c", "import time; time.sleep(60)")


class Worker:
    """A worker's launcher, on a clock of its own: `look` makes a quarter of a second pass."""

    def __init__(self, segment: Segment, master: Master, command: Sequence[str] | None = None) -> None:
        self.now = 1_000_000
        more = {"command": command} if command else {}
        self.launcher = Launcher(segment, Ledger(segment, takes_row=False), master.pid, "", now_ms=lambda: self.now, **more)

    def look(self) -> None:
        self.now += 250
        self.launcher.look()


@pytest.fixture
def controller(segment: Segment) -> Iterator[Callable[[], int]]:
    """The pid of the controller, 0 if there is none; what was started ends with the test."""
    seen: set[int] = set()

    def now() -> int:
        pid, started = segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1]
        seen.add(pid)
        return pid if is_alive(pid, started) else 0

    yield now
    now()
    for pid in seen - {0}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def at_work(segment: Segment, worker: Worker, controller: Callable[[], int], other_than: int = 0) -> int:
    """Look until a controller is at work."""
    def there() -> int:
        worker.look()
        return controller() if segment.cells[at.H_BEAT] and controller() != other_than else 0

    return wait_until(there, "a controller at work", 20, every=0.05)


def test_a_controller_that_ends_at_once_is_started_again_ever_more_slowly(
    master: Master, segment: Segment, caplog: pytest.LogCaptureFixture
) -> None:
    workers = [Worker(segment, master, ENDS_AT_ONCE) for _ in range(3)]
    starts: list[int] = []
    for _ in range(4 * 40):
        for worker in workers:
            before = segment.cells[at.H_STARTED]
            worker.look()
            if segment.cells[at.H_STARTED] != before:
                starts.append(worker.now - 1_000_000)
                worker.launcher._processes[-1].wait()  # it ends long before the next look, by the clock of the test
    # After 1 s, 2 s, 4 s and so on, whichever worker does it.
    assert [start // 1000 for start in starts] == [0, 1, 3, 7, 15, 31]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(starts) and all("ended with exit code 7; the next start is in" in each for each in said)


def test_it_is_started_once_however_many_workers_look(
    master: Master, segment: Segment, controller: Callable[[], int]
) -> None:
    workers = [Worker(segment, master) for _ in range(4)]
    pid = at_work(segment, workers[0], controller)
    for worker in workers * 8:
        worker.look()
    assert controller() == pid
    assert [bool(worker.launcher._processes) for worker in workers] == [True, False, False, False]


def test_one_that_was_killed_is_replaced_at_once_and_its_end_is_said(
    master: Master, segment: Segment, controller: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(segment, master)
    first = at_work(segment, worker, controller)
    os.kill(first, signal.SIGKILL)
    second = at_work(segment, worker, controller, other_than=first)
    assert second != first

    def is_said() -> bool:
        worker.look()
        return f"the controller (pid {first}) was killed by signal 9" in caplog.text

    wait_until(is_said, "its end", 20, every=0.05)


def test_a_frozen_controller_is_said_and_replaced(
    master: Master, segment: Segment, controller: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    workers = [Worker(segment, master) for _ in range(3)]
    first = at_work(segment, workers[0], controller)
    hold_still(first)
    for _ in range(36):
        for worker in workers:
            worker.look()
    assert controller() == first and "moved" not in caplog.text, "it may be slow"
    for _ in range(10):
        for worker in workers:
            worker.look()
    assert at_work(segment, workers[0], controller, other_than=first) != first
    said = [record.getMessage() for record in caplog.records if "has not moved for 10 s; it is killed" in record.getMessage()]
    assert len(said) == 1 and f"pid {first}" in said[0], "one of the workers says it"


def test_a_standstill_of_the_worker_itself_is_not_taken_for_one_of_the_controller(
    master: Master, segment: Segment, controller: Callable[[], int]
) -> None:
    worker = Worker(segment, master)
    first = at_work(segment, worker, controller)
    hold_still(first)
    worker.look()
    worker.now += 3_600_000
    worker.look()
    os.kill(first, signal.SIGCONT)
    beat = segment.cells[at.H_BEAT]
    wait_until(lambda: segment.cells[at.H_BEAT] != beat, "it goes on", 20)
    worker.look()
    assert controller() == first


def test_the_newest_masters_workers_replace_the_controller_of_another_one(
    master: Master, segment: Segment, controller: Callable[[], int], new_master: Callable[[], Master]
) -> None:
    old = Worker(segment, master)
    first = at_work(segment, old, controller)
    other = new_master()
    assert attach_or_create(other.pid, Layout(4, 8, 8), master.pid).name == segment.name
    new = Worker(segment, other)
    second = at_work(segment, new, controller, other_than=first)
    wait_until(lambda: not is_alive(first, segment.cells[at.H_CONTROLLER + 1]), "the first one has ended", 20)
    assert segment.cells[at.H_CONTROLLER_MASTER] == other.pid
    for _ in range(8):
        old.look()
    assert controller() == second, "the old master's workers leave it alone"
    # The way back: the new master ends, and the old one's workers have the controller again.
    other.kill()
    assert at_work(segment, old, controller, other_than=second) not in (first, second)
    assert segment.cells[at.H_CONTROLLER_MASTER] == master.pid


def test_an_older_masters_workers_start_one_if_those_of_the_newest_do_not(
    master: Master, segment: Segment, controller: Callable[[], int], new_master: Callable[[], Master]
) -> None:
    attach_or_create(new_master().pid, Layout(4, 8, 8), master.pid)
    old = Worker(segment, master, NEVER_WORKS)
    for _ in range(16):
        old.look()
    assert not controller()
    for _ in range(8):
        old.look()
    assert controller()


def test_a_program_that_cannot_be_started_is_said(
    master: Master, segment: Segment, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(segment, master, ("/no/such/python",))
    worker.look()
    assert "the controller cannot be started, which is tried again in 1.0 s: /no/such/python" in caplog.text
