"""The segment of an instance: found, made, replaced, removed."""
from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork_lb.shared import finding, making
from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY, open_segment, segment_names
from prefork_lb.shared.layout import Layout
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.lock import MUTEX_BYTES
from prefork_lb.shared.making import attach_or_create, remove
from prefork_lb.shared.segment import Segment, SegmentError
from tests.support.waiting import wait_until
from tests.unit.shared.breaking import Break, broken_off
from tests.unit.shared.conftest import ROWS, SERVERS
from tests.unit.shared.processes import Child, Master, Signals, running

NewMaster = Callable[[], Master]


def name_of(master: Master) -> str:
    return f"prefork-lb-{os.geteuid()}-{master.pid}-{master.started}"


def attach(master: Master, predecessor: int = 0) -> Segment:
    return attach_or_create(master.pid, ROWS, SERVERS, predecessor)


@pytest.fixture
def file(master: Master) -> Path:
    """Where the segment of `master` is, or will be."""
    return DIRECTORY / name_of(master)


def test_the_first_makes_it_and_the_others_find_it(master: Master, file: Path) -> None:
    first, second = attach(master), attach(master)
    assert first.name == second.name == file.name
    first.cells[at.H_RECLAIMED] = 42
    assert second.cells[at.H_RECLAIMED] == 42
    assert first.masters() == [master.pid]


def test_room_is_that_of_the_first_whatever_the_others_ask_for(master: Master) -> None:
    attach(master)
    assert attach_or_create(master.pid, 99, 99).layout == Layout(ROWS, SERVERS, attach(master).layout.pools)


def test_there_is_room_for_as_many_pools_as_servers(master: Master) -> None:
    """Each pool has one server at least, so that is enough."""
    assert attach_or_create(master.pid, 2, 100).layout.pools == 100


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
    code = f"from prefork_lb.shared.making import attach_or_create; attach_or_create({master.pid}, {ROWS}, {SERVERS})"
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


def write(file: Path, cells: dict[int, int], size: int) -> None:
    data = bytearray(size)
    with memoryview(data).cast("q") as view:
        for cell, value in cells.items():
            view[cell] = value
    file.write_bytes(data)
    file.chmod(0o600)


HALF_MADE = [
    ({}, 0),
    ({}, 8),
    ({}, 65536),
    ({at.H_ROWS: ROWS, at.H_SERVERS: SERVERS, at.H_POOLS: 4, at.H_VERSION: at.VERSION}, 65536),
    ({at.H_MAGIC: at.MAGIC, at.H_VERSION: at.VERSION, at.H_ROWS: ROWS, at.H_SERVERS: SERVERS, at.H_POOLS: 4}, 2048),
]


@pytest.mark.parametrize(("cells", "size"), HALF_MADE)
def test_a_half_made_segment_is_replaced(master: Master, file: Path, cells: dict[int, int], size: int) -> None:
    """Its maker was killed before it had written the mark; under the file lock nobody else can be in the middle."""
    write(file, cells, size)
    assert open_segment(file.name) is None
    segment = attach(master)
    assert segment.name == file.name and segment.masters() == [master.pid]
    assert Ledger(segment).totals.tolist() == [0] * SERVERS


def test_a_maker_killed_at_any_moment_leaves_something_that_the_next_replaces(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The search in /proc comes before anything is made. It takes some 10,000 instructions, each of which would be broken off.
    monkeypatch.setattr(making, "removed_segments", lambda uid: iter(()))
    instruction = 1
    while not broken_off(instruction, Break.KILL, lambda: lambda: attach(master)):
        assert attach(master).masters() == [master.pid]
        remove(master.pid)
        assert name_of(master) not in segment_names()
        instruction += 23
    assert instruction > 500  # it was traced


def test_another_versions_segment_stays_while_its_master_lives(new_master: NewMaster) -> None:
    """Two versions of this package on one host, or an upgrade: the running one must not lose its memory."""
    other, ours = new_master(), new_master()
    attach(other).cells[at.H_VERSION] = at.VERSION + 1
    assert attach(ours).name == name_of(ours)
    assert name_of(other) in segment_names()
    assert open_segment(name_of(other)) is None
    other.kill()
    attach(ours)
    assert name_of(other) not in segment_names()


def test_remove_takes_away_the_only_masters_segment(master: Master, file: Path) -> None:
    segment = attach(master)
    remove(master.pid)
    assert not file.exists()
    # Workers that still run keep theirs.
    assert Ledger(segment).totals.tolist() == [0] * SERVERS


def test_remove_leaves_what_a_successor_uses_and_what_is_of_others(new_master: NewMaster) -> None:
    old, new, stranger = new_master(), new_master(), new_master()
    attach(old)
    attach(new, old.pid)
    attach(stranger)
    remove(old.pid)
    assert {name_of(old), name_of(stranger)} <= set(segment_names())
    remove(12345678)
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
        remove(old.pid)

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
        remove(master.pid)
    assert f"{name_of(master)} is left to the next start to remove: {DIRECTORY}/prefork-lb-" in caplog.text
    assert name_of(master) in segment_names()
    remove(master.pid)
    assert name_of(master) not in segment_names()


def test_remove_passes_over_what_cannot_be_opened(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    attach(master)

    def refuse(name: str) -> Segment:
        raise SegmentError("another user's")

    monkeypatch.setattr(making, "open_segment", refuse)
    remove(master.pid)
    assert name_of(master) in segment_names()


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
    attach_or_create(master.pid, 64, 64)
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


@pytest.fixture
def other_uid(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """This process believes that it is another user; its files say otherwise."""
    uid = os.geteuid() + 4242
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    yield uid
    for path in DIRECTORY.glob(f"prefork-lb-{uid}*"):
        path.unlink()


def test_a_lock_file_of_another_user_is_refused(master: Master, other_uid: int) -> None:
    """Whoever holds it could stop every start; the file's name alone says nothing of whose it is."""
    (DIRECTORY / f"prefork-lb-{other_uid}.lock").touch()
    with pytest.raises(SegmentError, match=rf"prefork-lb-{other_uid}\.lock: belongs to another user \(uid \d+\); remove it"):
        attach(master)
    assert segment_names(other_uid) == []


def test_a_lock_file_that_is_a_link_is_not_followed(master: Master, other_uid: int, tmp_path: Path) -> None:
    (DIRECTORY / f"prefork-lb-{other_uid}.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SegmentError, match="prefork_lb needs to write to /"):
        attach(master)
    assert not (tmp_path / "elsewhere").exists()


def test_a_segment_that_another_user_laid_under_our_name_is_not_ours(master: Master, other_uid: int) -> None:
    """The name can be foreseen; memory that a stranger can write to would let him into this process."""
    attached = Layout(ROWS, SERVERS, SERVERS)
    laid = DIRECTORY / f"prefork-lb-{other_uid}-{master.pid}-{master.started}"
    write(laid, {at.H_MAGIC: at.MAGIC, at.H_VERSION: at.VERSION, at.H_ROWS: ROWS, at.H_SERVERS: SERVERS,
                 at.H_POOLS: SERVERS, at.H_MASTERS: master.pid, at.H_MASTERS + 1: master.started}, attached.size)
    assert segment_names(other_uid) == []
    assert laid.name not in segment_names()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_users_segment_cannot_be_opened(master: Master, file: Path) -> None:
    attach(master)

    def look() -> None:
        os.setuid(65534)
        with pytest.raises(SegmentError, match=f"{file}: Permission denied; it belongs to another user"):
            open_segment(file.name)

    assert Child(look).wait() == 0


def test_a_segment_with_a_view_outside_cannot_be_closed_silently(master: Master) -> None:
    segment = attach(master)
    view = segment.cells[:4]
    with pytest.raises(BufferError):
        segment.close()
    view.release()


OTHER_VERSIONS = (at.VERSION - 1, at.VERSION + 1)


def laid_by_another_version(made_by: Master, *masters: Master, version: int) -> Path:
    """A segment of an instance that runs another version; it was made by the first, the others share it."""
    file = DIRECTORY / name_of(made_by)
    cells = {at.H_MAGIC: at.MAGIC, at.H_VERSION: version}
    for index, master in enumerate(masters):
        cells |= {at.H_MASTERS + 2 * index: master.pid, at.H_MASTERS + 2 * index + 1: master.started}
    write(file, cells, 65536)
    return file


@pytest.mark.parametrize("version", OTHER_VERSIONS)
def test_another_versions_segment_stays_while_a_master_of_it_runs(new_master: NewMaster, version: int) -> None:
    """It was upgraded: the master that made it has ended, its successor serves on."""
    old, successor, ours = new_master(), new_master(), new_master()
    file = laid_by_another_version(old, old, successor, version=version)
    old.kill()
    attach(ours)
    assert file.exists()
    successor.kill()
    attach(ours)
    assert not file.exists()


def test_a_reload_after_an_upgrade_of_the_package_gets_a_segment_and_says_what_to_do(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the new workers could not start, and gunicorn would end the instance."""
    file = laid_by_another_version(master, master, version=at.VERSION - 1)
    before = file.read_bytes()
    first = attach(master)
    assert first.masters() == [master.pid] and first.name != file.name
    assert attach(master).name == first.name, "the siblings share it"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "Restart gunicorn, or upgrade it by SIGUSR2" in said[0]
    assert file.read_bytes() == before, "the old workers go on with theirs"
    remove(master.pid)
    assert first.name not in segment_names()


def test_another_versions_half_made_segment_is_removed(new_master: NewMaster) -> None:
    maker, ours = new_master(), new_master()
    file = DIRECTORY / name_of(maker)
    write(file, {at.H_VERSION: at.VERSION + 1, at.H_MASTERS: maker.pid, at.H_MASTERS + 1: maker.started}, 65536)
    attach(ours)
    assert not file.exists()


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


@pytest.mark.parametrize("sizes", [(1, 1, 1), (256, 256, 256), (3, 1000, 17)])
def test_no_two_parts_of_the_layout_overlap(sizes: tuple[int, int, int]) -> None:
    layout = Layout(*sizes, own_lines=1, sessions=3, statistics=1)
    rows, servers, pools = sizes
    key_cells = at.KEY_BYTES // at.CELL
    parts = [(0, at.H_MASTERS), (at.H_MASTERS, at.H_MASTERS + 2 * at.MASTERS),
             (at.H_CONFIGURATION_BYTES, at.H_REMOVED + 1),
             (layout.lock_byte // at.CELL, layout.lock_byte // at.CELL + MUTEX_BYTES // at.CELL)]
    parts += [(layout.column(number).start, layout.column(number).stop) for number in range(at.SERVER_COLUMNS)]
    parts += [(byte // at.CELL, byte // at.CELL + key_cells) for byte in map(layout.server_key_byte, range(servers))]
    for pool in range(pools):
        parts.append((layout.pool(pool), layout.pool(pool) + at.POOL_HEAD_CELLS))
        parts.append((layout.pool_key_byte(pool) // at.CELL, layout.pool_key_byte(pool) // at.CELL + key_cells))
    for row in range(rows):
        parts.append((layout.row(row), layout.row(row) + at.ROW_HEAD_CELLS))
        parts += [(layout.row_array(row, array).start, layout.row_array(row, array).stop) for array in range(at.ROW_ARRAYS)]
    for byte in map(layout.configuration_byte, (0, 1)):
        parts.append((byte // at.CELL, (byte + layout.configuration_bytes) // at.CELL))
    for row in range(rows):
        lines = [layout.own_line_array(row, array) for array in range(at.OWN_ARRAYS)]
        parts += [(line.start, line.stop) for line in lines]
    parts += [(block.start, block.stop) for block in map(layout.statistics_block, range(rows + 3))]
    parts.append((layout.sessions_start, layout.cells))
    parts.sort()
    for (_, end), (start, _) in zip(parts, parts[1:], strict=False):
        assert end <= start
    assert parts[-1][1] <= layout.cells == layout.size // at.CELL
    assert at.H_LOCK + MUTEX_BYTES // at.CELL <= at.HEADER_CELLS
    assert at.P_USED < at.POOL_HEAD_CELLS and at.R_LINGERING < at.ROW_HEAD_CELLS
