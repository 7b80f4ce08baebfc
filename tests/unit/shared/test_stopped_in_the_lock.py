"""A process is stopped inside the ledger's lock, and all others wait: the controller is killed for it, a worker is not."""
from __future__ import annotations

import os
import signal

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared import ledger as ledger_module
from prefork_lb.shared import lock as lock_module
from prefork_lb.shared.identity import start_time
from prefork_lb.shared.ledger import Ledger, end_stopped_controller
from prefork_lb.shared.segment import Segment
from tests.support.waiting import wait_until
from tests.unit.shared.processes import Child, Signals, running


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_STALL_S", "_LOOK_S"):
        monkeypatch.setattr(lock_module, name, 0.01)


def be_the_controller(segment: Segment, pid: int) -> None:
    segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1] = pid, start_time(pid)


def stop_inside(segment: Segment, signals: Signals) -> None:
    """Stop this process while it has the lock."""
    with Ledger(segment, takes_row=False).locked():
        signals.send()
        os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("waits", ["at its start", "at a request"])
def test_the_controller_is_killed(segment: Segment, signals: Signals, waits: str) -> None:
    ledger = Ledger(segment)
    with running(lambda: stop_inside(segment, signals)) as [controller]:
        signals.wait()
        be_the_controller(segment, controller.pid)

        def wait() -> None:
            if waits == "at its start":
                Ledger(segment)
            else:
                with ledger.locked():
                    pass

        with running(wait) as [waiting]:
            wait_until(lambda: not start_time(waiting.pid), "it has the lock", 10)
            assert waiting.wait() == 0
        assert controller.wait() == -signal.SIGKILL
    assert segment.cells[at.H_REPAIRS] == 1


def test_a_worker_is_left_alone(segment: Segment, signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has clients, and it may be let go on."""
    with running(lambda: stop_inside(segment, signals)) as [worker]:
        signals.wait()
        be_the_controller(segment, os.getpid())

        def look(cells: memoryview, owner: int, looks: int) -> None:
            end_stopped_controller(cells, owner, looks)
            if looks == 20:
                os.kill(owner, signal.SIGCONT)

        monkeypatch.setattr(ledger_module, "end_stopped_controller", look)
        assert Child(lambda: Ledger(segment)).wait() == 0
        assert worker.wait() == 0
    assert segment.cells[at.H_REPAIRS] == 0


@pytest.mark.parametrize("looks", [9, 10])
def test_it_has_ten_seconds(segment: Segment, looks: int, caplog: pytest.LogCaptureFixture) -> None:
    with running(signal.pause) as [controller]:
        be_the_controller(segment, controller.pid)
        end_stopped_controller(segment.cells, controller.pid, looks)
        if looks == 10:
            assert controller.wait() == -signal.SIGKILL
            assert f"the controller (pid {controller.pid}) has held the ledger's lock for 10 s; it is killed" in caplog.text
        else:
            assert not caplog.text
