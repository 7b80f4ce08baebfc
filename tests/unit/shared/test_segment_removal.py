"""Segments are removed when nobody needs them, and the file lock that making and removing take."""
from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork_lb.shared import finding, making
from prefork_lb.shared.finding import DIRECTORY, segment_names
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import remove_segment
from prefork_lb.shared.segment import Segment, SegmentError
from tests.support.waiting import wait_until
from tests.unit.shared.conftest import SERVERS, NewMaster, attach, name_of
from tests.unit.shared.processes import Master, Signals, running


def test_remove_takes_away_the_only_masters_segment(master: Master, file: Path) -> None:
    segment = attach(master)
    remove_segment(master.pid)
    assert not file.exists()
    # Workers that still run keep theirs.
    assert Ledger(segment).totals.tolist() == [0] * SERVERS


def test_remove_leaves_what_a_successor_uses_and_what_is_of_others(new_master: NewMaster) -> None:
    old, new, stranger = new_master(), new_master(), new_master()
    attach(old)
    attach(new, old.pid)
    attach(stranger)
    remove_segment(old.pid)
    assert {name_of(old), name_of(stranger)} <= set(segment_names())
    remove_segment(12345678)
    assert {name_of(old), name_of(stranger)} <= set(segment_names())


def waits_for_a_file_lock(pid: int) -> bool:
    """proc_locks(5): an arrow stands before those that wait."""
    return re.search(rf"-> FLOCK +ADVISORY +WRITE +{pid} ", Path("/proc/locks").read_text()) is not None


def test_remove_leaves_no_successor_without_a_segment_that_joins_at_the_same_moment(
    new_master: NewMaster, new_signals: Callable[[], Signals], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old master has found itself alone, and is about to clear the list of masters: a worker of the new one joins."""
    old, new = new_master(), new_master()
    segment = attach(old)
    is_alone, go_on = new_signals(), new_signals()
    end = making._end

    def end_slowly(segment: Segment) -> None:
        is_alone.send()
        go_on.wait()
        end(segment)

    def remove_slowly() -> None:
        monkeypatch.setattr(making, "_end", end_slowly)
        remove_segment(old.pid)

    joined = new_signals()

    def join() -> None:
        segment = attach(new, old.pid)
        joined.wait()
        assert new.pid in segment.masters()

    with running(remove_slowly) as [removing]:
        is_alone.wait()
        with running(join) as [joining]:
            wait_until(lambda: waits_for_a_file_lock(joining.pid) or new.pid in segment.masters(), "it joins, or waits", 10)
            go_on.send()
            assert removing.wait() == 0
            joined.send()
            assert joining.wait() == 0


def test_a_master_ends_though_another_process_holds_the_file_lock(
    master: Master, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That process may be stopped. The next start removes the segment."""
    attach(master)
    monkeypatch.setattr(making, "_PATIENCE_S", 0.05)
    with making._file_lock(os.geteuid()):
        remove_segment(master.pid)
    assert f"{name_of(master)} is left to the next start to remove: {DIRECTORY}/prefork-lb-" in caplog.text
    assert name_of(master) in segment_names()
    remove_segment(master.pid)
    assert name_of(master) not in segment_names()


def test_remove_passes_over_what_cannot_be_opened(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(master)

    def refuse(name: str) -> Segment:
        raise SegmentError("another user's")

    monkeypatch.setattr(making, "open_segment", refuse)
    remove_segment(master.pid)
    assert name_of(master) in segment_names()


def test_a_lock_file_that_is_removed_while_others_wait_for_it_locks_nobody_out(
    master: Master, signals: Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cleaner removes it: those who waited for the old file and those who come later agree on the new one."""
    for module in (making, finding):
        monkeypatch.setattr(module, "DIRECTORY", tmp_path)
    path = tmp_path / f"prefork-lb-{os.geteuid()}.lock"
    path.touch(0o600)

    def start() -> None:
        signals.send()
        attach(master)

    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with running(start) as (waiting,):
            signals.wait()
            path.unlink()
            fcntl.flock(held, fcntl.LOCK_UN)
            assert waiting.wait() == 0
    assert path.exists()
