"""The segment of an instance: found, made, shared by masters."""
from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefork_lb.shared import finding
from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY, open_segment, segment_names
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.lock import MUTEX_BYTES
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import SegmentError
from tests.unit.shared.conftest import ROWS, SERVERS, NewMaster, attach, name_of
from tests.unit.shared.processes import Master, running


def test_the_first_makes_it_and_the_others_find_it(master: Master, file: Path) -> None:
    first, second = attach(master), attach(master)
    assert first.name == second.name == file.name
    first.cells[at.H_RECLAIMED] = 42
    assert second.cells[at.H_RECLAIMED] == 42
    assert first.masters() == [master.pid]


def test_room_is_that_of_the_first_whatever_the_others_ask_for(master: Master) -> None:
    attach(master)
    assert attach_or_create(master.pid, Layout(99, 99, 99)).layout == Layout(ROWS, SERVERS, attach(master).layout.pools)


def test_only_its_user_can_read_it(master: Master, file: Path) -> None:
    attach(master)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (DIRECTORY / f"prefork-lb-{os.geteuid()}.lock").stat().st_mode & 0o777 == 0o600


def test_workers_that_start_at_once_share_one(master: Master) -> None:
    def start() -> None:
        cells = attach(master)
        assert cells.masters() == [master.pid]
        ledger = Ledger(cells)
        ledger.acquire()
        cells.cells[at.H_RECLAIMED] += 1
        ledger.release_lock()

    with running(start, 6) as workers:
        assert [worker.wait() for worker in workers] == [0] * 6
    assert attach(master).cells[at.H_RECLAIMED] == 6


def test_it_outlives_the_process_that_made_it(master: Master, file: Path) -> None:
    """No resource tracker takes it away when the first worker ends."""
    code = ("from prefork_lb.shared.making import attach_or_create; from prefork_lb.shared.offsets import Layout; "
            f"attach_or_create({master.pid}, Layout({ROWS}, {SERVERS}, {SERVERS}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert file.exists()


def test_a_segment_whose_master_was_killed_is_removed_by_the_next_start(new_master: NewMaster) -> None:
    dead, alive = new_master(), new_master()
    attach(dead).cells[at.H_RECLAIMED] = 42
    dead.kill()
    assert attach(alive).cells[at.H_RECLAIMED] == 0
    assert name_of(dead) not in segment_names()
    assert name_of(alive) in segment_names()


def test_two_instances_at_once_do_not_meet(new_master: NewMaster) -> None:
    one, other = new_master(), new_master()
    ours, theirs = attach(one), attach(other)
    assert ours.name != theirs.name
    mine = Ledger(ours)
    mine.acquire()
    mine.claim(3)
    mine.release_lock()
    assert Ledger(theirs).totals.tolist() == [0] * SERVERS
    assert Ledger(attach(one)).totals.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_a_successor_joins_its_predecessors_segment(new_master: NewMaster) -> None:
    """gunicorn's USR2: both masters balance at once, and count together."""
    old, new = new_master(), new_master()
    before = attach(old)
    after = attach(new, predecessor=old.pid)
    assert after.name == before.name
    assert before.masters() == [old.pid, new.pid]
    assert attach(new, predecessor=old.pid).masters() == [old.pid, new.pid], "entered once"
    old.kill()
    assert attach(new, predecessor=old.pid).name == before.name
    assert before.masters() == [new.pid]


def test_a_predecessor_that_is_gone_leaves_a_segment_of_ones_own(new_master: NewMaster) -> None:
    old, new = new_master(), new_master()
    attach(old)
    old.kill()
    assert attach(new, predecessor=old.pid).name == name_of(new)


def test_masters_are_listed_oldest_first_also_when_places_are_used_again(new_master: NewMaster) -> None:
    first = new_master()
    segment = attach(first)
    second = new_master()
    attach(second, first.pid)
    first.kill()
    third = later_than(second, new_master)
    attach(third, second.pid)
    assert segment.masters() == [second.pid, third.pid]


def later_than(earlier: Master, new_master: NewMaster) -> Master:
    """Start times have a hundredth of a second; one that differs."""
    for _ in range(200):
        master = new_master()
        if master.started > earlier.started:
            return master
        master.kill()
    raise AssertionError("no later start time")


def test_too_many_masters_are_refused(new_master: NewMaster) -> None:
    masters = [new_master() for _ in range(at.MASTERS + 1)]
    attach(masters[0])
    for master in masters[1:-1]:
        attach(master, masters[0].pid)
    with pytest.raises(SegmentError, match=f"{at.MASTERS} gunicorn masters share it already"):
        attach(masters[-1], masters[0].pid)


def test_a_master_that_has_ended_gets_none(master: Master) -> None:
    """A worker whose master was killed while it started: it must not make a segment that nobody ever removes."""
    before = segment_names()
    master.kill()
    with pytest.raises(SegmentError, match=rf"gunicorn's master \(pid {master.pid}\) has ended"):
        attach(master)
    assert set(segment_names()) <= set(before)


def test_open_segment_finds_nothing_where_there_is_nothing() -> None:
    assert open_segment("prefork-lb-0-0-0") is None


def test_names_are_listed_oldest_first_and_strange_files_are_not(new_master: NewMaster) -> None:
    one = new_master()
    two = later_than(one, new_master)
    for master in (two, one):
        attach(master)
    strange = DIRECTORY / f"{name_of(one)}.old"
    strange.touch()
    try:
        found = segment_names(os.geteuid())
    finally:
        strange.unlink()
    assert [name for name in found if name in (name_of(one), name_of(two), strange.name)] == [name_of(one), name_of(two)]
    assert name_of(one) not in segment_names(os.geteuid() + 1)


def test_without_shared_memory_there_are_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "DIRECTORY", tmp_path / "none")
    assert segment_names() == []


def test_a_full_dev_shm_is_told_at_the_start_and_leaves_nothing(
    master: Master, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SegmentError, match=rf"{DIRECTORY}: no room for \d+ bytes: No space left on device; enlarge it"):
        attach(master)
    assert not file.exists()
    monkeypatch.undo()
    assert attach(master).masters() == [master.pid]


def test_its_memory_is_there_from_the_start(master: Master, file: Path) -> None:
    """Not promised: a page that cannot be had later is SIGBUS in the middle of a request."""
    attach_or_create(master.pid, Layout(64, 64, 64))
    status = file.stat()
    assert status.st_blocks * 512 >= status.st_size


def test_a_segment_that_cannot_be_made_names_the_file_and_the_reason(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_EXCL:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SegmentError, match=f"{name_of(master)}: cannot be created: Permission denied"):
        attach(master)


def test_a_segment_with_a_view_outside_cannot_be_closed_silently(master: Master) -> None:
    segment = attach(master)
    view = segment.cells[:4]
    with pytest.raises(BufferError):
        segment.close()
    view.release()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (256, 256, 256), (3, 1000, 17)])
def test_no_two_parts_of_the_layout_overlap(sizes: tuple[int, int, int]) -> None:
    layout = Layout(*sizes, own_lines=1, sessions=3, statistics=1, rates=16, keys=64, filters=2)
    rows, servers, pools = sizes
    key_cells = at.KEY_BYTES // at.CELL
    parts = [(0, at.H_MASTERS), (at.H_MASTERS, at.H_MASTERS + 2 * at.MASTERS),
             (at.H_CONFIGURATION_BYTES, at.H_REMOVED + 1),
             (layout.lock_byte // at.CELL, layout.lock_byte // at.CELL + MUTEX_BYTES // at.CELL)]
    parts += [(layout.column(number).start, layout.column(number).stop) for number in range(at.SERVER_COLUMNS)]
    parts.append((at.HEADER_CELLS, at.BALANCERS_START))
    parts.append((at.BALANCERS_START, at.BALANCERS_START + at.BALANCERS * at.BALANCER_CELLS))
    parts += [(byte // at.CELL, byte // at.CELL + key_cells) for byte in map(layout.server_key_byte, range(servers))]
    notes = [*map(layout.server_note_byte, range(servers)), *map(layout.server_reason_byte, range(servers)),
             *map(layout.server_failure_byte, range(servers)),
             *map(layout.pool_note_byte, range(pools)), *map(layout.discovery_note_byte, range(pools))]
    parts += [(byte // at.CELL, (byte + at.NOTE_BYTES) // at.CELL) for byte in notes]
    for pool in range(pools):
        parts.append((layout.pool(pool), layout.pool(pool) + at.POOL_HEAD_CELLS))
        parts.append((layout.pool_key_byte(pool) // at.CELL, layout.pool_key_byte(pool) // at.CELL + key_cells))
        parts.append((layout.pool_scaling(pool), layout.pool_scaling(pool) + at.SCALING_CELLS))
        parts.append((layout.pool_discovery(pool), layout.pool_discovery(pool) + at.DISCOVERY_CELLS))
    for row in range(rows):
        parts.append((layout.row(row), layout.row(row) + at.ROW_HEAD_CELLS))
        parts += [(layout.row_array(row, array).start, layout.row_array(row, array).stop) for array in range(at.ROW_ARRAYS)]
    for byte in map(layout.configuration_byte, (0, 1)):
        parts.append((byte // at.CELL, (byte + layout.configuration_bytes) // at.CELL))
    for row in range(rows):
        lines = [layout.own_line_array(row, array) for array in range(at.OWN_ARRAYS)]
        parts += [(line.start, line.stop) for line in lines]
    parts += [(block.start, block.stop) for block in map(layout.statistics_block, range(rows + 3))]
    parts.append((layout.rates_start, layout.rates_start + layout.rates * at.RATE_CELLS))
    parts += [(keys.start, keys.stop) for keys in (layout.key_hashes, layout.key_totals, *map(layout.row_keys, range(rows)))]
    parts += [(layout.filter_block(number), layout.filter_block(number + 1)) for number in range(2)]
    parts.append((layout.sessions_start, layout.cells))
    parts.sort()
    for (_, end), (start, _) in zip(parts, parts[1:], strict=False):
        assert end <= start
    assert parts[-1][1] <= layout.cells == layout.size // at.CELL
    assert at.H_LOCK + MUTEX_BYTES // at.CELL <= at.HEADER_CELLS
    assert at.P_USED < at.POOL_HEAD_CELLS and at.R_LINGERING < at.ROW_HEAD_CELLS
