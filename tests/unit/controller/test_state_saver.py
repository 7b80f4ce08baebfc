"""The thread that keeps the state file, when something fails there that must not."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.controller.state_saver import StateSaver
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.state_file import StateFile
from prefork_lb.shared.states import States
from tests.support.waiting import wait_until


def test_what_fails_at_every_look_is_told_once_and_not_four_times_a_second(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    def fail(_: StateFile) -> None:
        nonlocal looks
        looks += 1
        raise ValueError("a defect")

    monkeypatch.setattr(StateFile, "look", fail)
    saver = StateSaver(segment, States(segment))
    saver.use(str(tmp_path / "states"), 60, "prefork_lb.toml")
    wait_until(lambda: looks == 3, "it goes on", 10)
    monkeypatch.undo()
    wait_until(lambda: "the controller can keep the state file again" in caplog.text, lambda: caplog.text, 10)
    saver.close()
    assert caplog.text.count("the controller cannot keep the state file") == caplog.text.count("Traceback") == 1
