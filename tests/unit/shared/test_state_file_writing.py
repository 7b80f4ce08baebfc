"""The state file: when it is written, and by whom."""
from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.state_file import folder_problem
from prefork_lb.shared.state_file_lock import Holder, holder, take
from prefork_lb.shared.states import Admin
from prefork_lb.shared.transitions import Check
from tests.unit.shared.processes import Signals, running
from tests.unit.shared.saving import CONFIGURATION, Saving


def test_it_is_written_when_what_it_says_changes_and_not_for_every_check(
    segment: Segment, slots: list[int], tmp_path: Path
) -> None:
    saving = Saving(tmp_path / "state.json", segment)
    saving.look()
    assert saving.written()
    for state in (Check.DOWN, Check.UP):
        saving.states.set_check(slots[0], state, "")
        saving.look()
    assert not saving.written()
    saving.states.set_admin(slots[0], Admin.MAINTENANCE)
    saving.look()
    assert saving.written()


@pytest.mark.parametrize(("max_age_s", "every_s"), [(3600, 60), (86400, 60), (100, 25), (1, 0.25)])
def test_the_time_in_it_moves_while_the_instance_lives(
    segment: Segment, slots: list[int], tmp_path: Path, max_age_s: float, every_s: float
) -> None:
    """Else a drain of two hours ago would be forgotten, although the instance ended a moment ago."""
    saving = Saving(tmp_path / "state.json", segment, max_age_s)
    saving.look()
    assert saving.written()
    if every_s > 0.25:
        saving.look(every_s - 0.25)
        assert not saving.written()
    saving.look(0.25)
    assert saving.written()


def test_it_is_not_written_before_it_was_read(segment: Segment, slots: list[int], tmp_path: Path) -> None:
    saving = Saving(tmp_path / "state.json", segment)
    segment.cells[at.H_RESTORED] = 0
    saving.look()
    saving.file.close()
    assert not saving.written()


def test_a_write_that_fails_is_told_once_a_minute_and_tried_again(
    segment: Segment, slots: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "none" / "state.json"
    saving = Saving(path, segment)
    for _ in range(4 * 50):
        saving.look()
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: states of servers are not saved, which is tried again every 2 s: {path}.lock: No such file or directory"]
    for _ in range(4 * 20):
        saving.look()
    assert len(caplog.records) == 2
    path.parent.mkdir()
    saving.look(2)
    assert saving.written() and caplog.records[-1].getMessage() == f"{path}: the states are saved again"


def test_a_full_disk_leaves_the_file_as_it_was(
    segment: Segment, slots: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saving = Saving(tmp_path / "state.json", segment)
    saving.look()
    before = saving.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    saving.states.set_admin(slots[0], Admin.DRAIN)
    saving.look()
    assert saving.path.read_bytes() == before and "No space left on device" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.json.lock"]
    monkeypatch.undo()
    saving.look(2)
    assert b"drain" in saving.path.read_bytes()


def test_kills_in_a_write_leave_one_file_at_most_and_the_next_write_takes_it_away(
    segment: Segment, slots: list[int], tmp_path: Path
) -> None:
    def killed() -> None:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        Saving(tmp_path / "state.json", segment).look()

    for _ in range(3):
        with running(killed) as [child]:
            assert child.wait() == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == [".state.json.fresh", "state.json.lock"]
    Saving(tmp_path / "state.json", segment).look()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.json.lock"]


# -- who writes it ---------------------------------------------------------------------------------------------------


def test_a_second_instance_does_not_write_to_it_and_says_who_does(
    segment: Segment, slots: list[int], tmp_path: Path, new_segment: Segment, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    segment.cells[at.H_CONTROLLER_MASTER] = 4711
    first, second = Saving(path, segment), Saving(path, new_segment)
    first.look()
    assert first.written() and holder(path) == Holder(os.getpid(), 4711, CONFIGURATION)
    second.look()
    assert not second.written() and not caplog.records, "it may be the controller that is about to be replaced"
    second.look(3)
    assert not second.written()
    who = f"the instance of gunicorn master 4711 ({CONFIGURATION}) writes it, by its controller {os.getpid()}"
    assert f"it is in use: {who}; give each instance a file of its own" in caplog.text
    second.file.close()
    assert not second.written(), "nor at its end"
    first.file.close()
    assert first.written()
    assert holder(path) is None
    third = Saving(path, new_segment)
    third.look()
    assert third.written() and holder(path) is not None
    third.file.close()


def test_the_lock_of_a_holder_that_was_killed_is_free(tmp_path: Path, signals: Signals) -> None:
    path = tmp_path / "state.json"

    def hold() -> None:
        take(path, Holder(os.getpid(), 1, CONFIGURATION))
        signals.send()
        signal.pause()

    with running(hold) as [child]:
        signals.wait()
        assert holder(path) == Holder(child.pid, 1, CONFIGURATION)
        with pytest.raises(BlockingIOError):
            take(path, Holder(2, 2, ""))
    assert holder(path) is None


def test_a_folder_that_is_missing_or_not_ours_is_found_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_problem(tmp_path / "state.json") == ""
    assert folder_problem(tmp_path) == "is a folder; expected the path of a file"
    assert folder_problem(tmp_path / "none" / "state.json") == f"there is no folder {tmp_path / 'none'}"
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do everything
    assert folder_problem(tmp_path / "state.json") == f"the folder {tmp_path} cannot be written to by this user"
