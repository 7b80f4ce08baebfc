"""The file of a running instance's segment is removed: everybody goes on with the same memory."""
from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY, find, open_inherited, removed_segments, segments
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.sweeping import Sweeper
from tests.unit.shared.conftest import ROWS, SERVERS
from tests.unit.shared.processes import Child, Master, Signals, running
from tests.unit.shared.test_ledger import claim


@pytest.fixture
def removed(segment: Segment) -> Segment:
    (DIRECTORY / segment.name).unlink()
    return segment


def test_a_worker_that_starts_later_finds_the_memory_of_its_siblings(master: Master, removed: Segment) -> None:
    claim(Ledger(removed), 3)
    again = attach_or_create(master.pid, Layout(ROWS, SERVERS, SERVERS))
    assert again.name == removed.name and again.is_removed
    assert Ledger(again).totals[3] == 1
    assert not (DIRECTORY / removed.name).exists()


def test_only_a_process_that_keeps_it_open_is_needed(master: Master, signals: Signals) -> None:
    """The test itself has never had it open."""
    over = Signals()

    def work() -> None:
        mine = attach_or_create(master.pid, Layout(ROWS, SERVERS, SERVERS))
        claim(Ledger(mine), 5)
        (DIRECTORY / mine.name).unlink()
        signals.send()
        over.wait()

    with running(work) as (worker,):
        signals.wait()
        found = find(master.pid)
        assert found is not None
        with contextlib.closing(Ledger(found)) as ledger:
            assert ledger.totals[5] == 1
        found.close()
        over.send()
        assert worker.wait() == 0
    over.close()


def test_a_new_master_of_an_upgrade_finds_it(new_master: Callable[[], Master]) -> None:
    old, new = new_master(), new_master()
    before = attach_or_create(old.pid, Layout(ROWS, SERVERS, SERVERS))
    (DIRECTORY / before.name).unlink()
    after = attach_or_create(new.pid, Layout(ROWS, SERVERS, SERVERS), old.pid)
    assert after.name == before.name and before.masters() == [old.pid, new.pid]


def test_another_instance_makes_its_own(new_master: Callable[[], Master], removed: Segment) -> None:
    other = new_master()
    made = attach_or_create(other.pid, Layout(ROWS, SERVERS, SERVERS))
    assert made.name != removed.name and made.masters() == [other.pid]


def test_descriptors_that_are_closed_during_the_search_hide_no_others(
        master: Master, removed: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that started then made a second memory, with counts of its own."""
    read = os.readlink

    def readlink(path: str) -> str:
        if path.endswith("/fd/0"):
            raise FileNotFoundError(path)
        return read(path)

    monkeypatch.setattr(os, "readlink", readlink)
    found = find(master.pid)
    assert found is not None and found.name == removed.name


def test_a_process_that_ends_during_the_search_hides_no_others(
        master: Master, removed: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends between the look at its descriptor and the opening of that."""
    again, opened = attach_or_create(master.pid, Layout(ROWS, SERVERS, SERVERS)), os.open

    def ends(path: str, flags: int) -> int:
        monkeypatch.setattr(os, "open", opened)
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "open", ends)
    assert [found.name for found in removed_segments(os.geteuid())].count(again.name) == 1


def test_it_is_listed_once_however_many_have_it_open(removed: Segment) -> None:
    held = os.open(f"/proc/self/fd/{removed.descriptor}", os.O_RDWR)
    try:
        listed = [segment.name for segment in segments(os.geteuid())]
    finally:
        os.close(held)
    assert listed.count(removed.name) == 1


def test_a_file_of_another_user_with_such_a_name_is_not_looked_at(removed: Segment) -> None:
    """Its name can be foreseen; memory that a stranger can write to would let him into this process."""
    uid = os.geteuid() + 4242
    path = DIRECTORY / f"prefork-lb-{uid}-1-1"
    path.write_bytes(bytes(removed.text))
    held = os.open(path, os.O_RDWR)
    path.unlink()
    try:
        assert path.name not in [segment.name for segment in removed_segments(None)]
    finally:
        os.close(held)


def test_the_removal_is_told_once_by_one_process(removed: Segment, caplog: pytest.LogCaptureFixture) -> None:
    sweeps = [Sweeper(removed, Ledger(removed, takes_row=False), States(removed)) for _ in range(2)]
    with caplog.at_level(logging.ERROR, "prefork_lb"):
        for sweep in sweeps * 3:
            sweep.sweep()
    assert [record.getMessage().partition(".")[0] for record in caplog.records] == [
        f"{DIRECTORY / removed.name} was removed while this instance runs"]
    assert removed.cells[at.H_REMOVED] == 1


def test_the_end_of_an_instance_is_no_removal(master: Master, segment: Segment, caplog: pytest.LogCaptureFixture) -> None:
    """gunicorn's master removes the file when it ends; the controller looks once more before it ends, too."""
    remove_segment(master.pid)
    Sweeper(segment, Ledger(segment, takes_row=False), States(segment)).sweep()
    assert segment.is_removed and caplog.records == []
    assert segment.masters() == [] and find(master.pid) is None


def test_nothing_is_told_while_it_is_there(segment: Segment, caplog: pytest.LogCaptureFixture) -> None:
    Sweeper(segment, Ledger(segment, takes_row=False), States(segment)).sweep()
    assert caplog.records == [] and not segment.is_removed


def test_a_passed_descriptor_is_enough_and_opened_anew(removed: Segment) -> None:
    """Locks on the file belong to an open file: the worker must not keep the controller's."""
    opened = open_inherited(removed.descriptor, removed.name)
    assert opened is not None and opened.masters() == removed.masters()
    assert os.readlink(f"/proc/self/fd/{opened.descriptor}").endswith("(deleted)")
    Child(lambda: os.lseek(opened.descriptor, 8, os.SEEK_SET)).wait()
    assert os.lseek(opened.descriptor, 0, os.SEEK_CUR) == 8, "shared with the child"
    assert os.lseek(removed.descriptor, 0, os.SEEK_CUR) == 0, "not shared with the one it came from"
