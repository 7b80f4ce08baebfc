"""The last master of an instance waits for the controller that ends scaled servers."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prefork_lb.shared import ending
from prefork_lb.shared import layout as at
from prefork_lb.shared.ending import end_instance
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.scaling_state import Mode, Scaling, write_scaling
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import now_ms
from tests.unit.shared.processes import Master

LOOKS = 3


@pytest.fixture
def controller(new_master: Callable[[], Master], segment: Segment) -> Master:
    """A process that stands in for the controller, which has just moved."""
    process = new_master()
    segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1] = process.pid, process.started
    segment.cells[at.H_BEAT] = now_ms() + 60_000  # it is believed for the whole of the test
    return process


@pytest.fixture
def looks(controller: Master, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the master has made. The controller ends in the third one."""
    made: list[float] = []

    def pause(seconds: float) -> None:
        made.append(seconds)
        if len(made) == LOOKS:
            controller.kill()

    monkeypatch.setattr(ending.time, "sleep", pause)
    return made


def scale(segment: Segment) -> None:
    with Ledger(segment, takes_row=False).locked():
        write_scaling(segment, 0, Scaling(Mode.AUTO, 2, 1, 1, 0, 0, ""))


def test_the_controller_is_waited_for_where_a_pool_scales(
        segment: Segment, master: Master, controller: Master, looks: list[float], file: Path) -> None:
    scale(segment)
    end_instance(master.pid)
    assert len(looks) == LOOKS
    assert not file.exists()


def test_nobody_waits_where_no_pool_scales(segment: Segment, master: Master, looks: list[float], file: Path) -> None:
    end_instance(master.pid)
    assert looks == []
    assert not file.exists()


def test_a_controller_that_stands_still_keeps_nobody(segment: Segment, master: Master, looks: list[float]) -> None:
    scale(segment)
    segment.cells[at.H_BEAT] = now_ms() - 60_000
    end_instance(master.pid)
    assert looks == []


def test_a_controller_that_ends_one_thing_for_long_is_waited_for(
        segment: Segment, master: Master, looks: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop of a pool's units may take 10 s, and the state file 5 s, without a sign of life."""
    scale(segment)
    monkeypatch.setattr(ending, "now_ms", lambda: segment.cells[at.H_BEAT] + 10_500)
    end_instance(master.pid)
    assert len(looks) == LOOKS


def test_the_first_of_two_masters_leaves_the_instance_as_it_is(
        segment: Segment, master: Master, new_master: Callable[[], Master], looks: list[float], file: Path) -> None:
    scale(segment)
    second = new_master()
    segment.cells[at.H_MASTERS + 2], segment.cells[at.H_MASTERS + 3] = second.pid, second.started
    end_instance(master.pid)
    assert looks == []
    assert file.exists()
