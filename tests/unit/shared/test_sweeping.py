"""Who looks for dead workers, and that the others do not."""
from __future__ import annotations

import os
import signal

import pytest

from prefork_lb.controller import launch
from prefork_lb.controller.launch import Launcher
from prefork_lb.shared import layout as at
from prefork_lb.shared import rows as rows_module
from prefork_lb.shared import segment as segment_module
from prefork_lb.shared.identity import myself
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.sweeping import Sweeper
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.transitions import Ejection, StateEvent
from tests.unit.shared.processes import Master, Signals, running
from tests.unit.shared.test_ledger import claim


@pytest.fixture
def slot(segment: Segment, ledger: Ledger) -> int:
    return register(segment, ledger, [PoolEntry("web", [ServerEntry("10.0.0.1:80", 1, 0, False)])])["web"].slots[0]


@pytest.fixture
def sweeper(segment: Segment, ledger: Ledger) -> Sweeper:
    return Sweeper(segment, ledger, States(segment))


def test_a_worker_sweeps_when_nobody_else_does(
    segment: Segment, ledger: Ledger, slot: int, sweeper: Sweeper, signals: Signals
) -> None:
    def work() -> None:
        claim(Ledger(segment), slot)
        signals.send()
        signal.pause()

    with running(work):
        signals.wait()
    assert ledger.totals[slot] == 1
    segment.cells[at.H_SWEPT] = now_ms() + 60_000  # somebody has a moment ago, however slow this test is
    sweeper.sweep_if_overdue()
    assert ledger.totals[slot] == 1
    segment.cells[at.H_SWEPT] = now_ms() - 601
    sweeper.sweep_if_overdue()
    assert ledger.totals[slot] == 0 and now_ms() - segment.cells[at.H_SWEPT] < 60_000


def test_an_ejection_whose_time_is_over_makes_a_trial_due(segment: Segment, ledger: Ledger, slot: int, sweeper: Sweeper) -> None:
    states = States(segment)
    with ledger.locked():
        states.eject(slot, StateEvent.FAILED, now_ms() - 1)
    sweeper.sweep()
    assert states.ejection[slot] == Ejection.TRIAL_DUE


def test_a_worker_asks_nothing_of_the_kernel_while_the_controller_is_at_work(
    master: Master, segment: Segment, ledger: Ledger, slot: int, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 workers that look at one another four times a second read /proc 16,000 times a second."""
    segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1] = myself()
    segment.cells[at.H_CONTROLLER_MASTER] = master.pid
    launcher = Launcher(segment, ledger, master.pid, "")

    def forbidden(pid: int, started: int) -> bool:
        raise AssertionError(f"looked at {pid}")

    for module in (launch, rows_module, segment_module):
        monkeypatch.setattr(module, "is_alive", forbidden)
    for beat in range(1, 20):
        segment.cells[at.H_BEAT], segment.cells[at.H_SWEPT] = beat, now_ms()
        launcher.look()
        sweeper.sweep_if_overdue()
    with pytest.raises(AssertionError, match=f"looked at {os.getpid()}"):
        launcher.look()  # it has not moved


def test_a_server_that_nobody_names_is_dropped_whoever_gave_the_last_row_back(
    segment: Segment, ledger: Ledger, sweeper: Sweeper, signals: Signals
) -> None:
    """A command looks at the ledger, and gives the row of an ended worker back, before the sweep finds it."""
    def work() -> None:
        register(segment, Ledger(segment), [PoolEntry("web", [ServerEntry("10.0.0.9:80", 1, 0, False)])])
        signals.send()
        signal.pause()

    with running(work):
        signals.wait()
        register(segment, ledger, [PoolEntry("web", [ServerEntry("10.0.0.1:80", 1, 0, False)])])
        assert len(slots_by_key(segment)) == 2
    Ledger(segment, takes_row=False)
    sweeper.sweep()
    assert list(slots_by_key(segment)) == [("web", "10.0.0.1:80")]
