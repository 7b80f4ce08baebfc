"""Segments that are half made, or in the format of another version."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared import making
from prefork_lb.shared.finding import DIRECTORY, open_segment, segment_names
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import remove_segment
from tests.unit.shared.breaking import Break, broken_off
from tests.unit.shared.conftest import ROWS, SERVERS, NewMaster, attach, name_of, write
from tests.unit.shared.processes import Master

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
        remove_segment(master.pid)
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
    remove_segment(master.pid)
    assert first.name not in segment_names()


def test_another_versions_half_made_segment_is_removed(new_master: NewMaster) -> None:
    maker, ours = new_master(), new_master()
    file = DIRECTORY / name_of(maker)
    write(file, {at.H_VERSION: at.VERSION + 1, at.H_MASTERS: maker.pid, at.H_MASTERS + 1: maker.started}, 65536)
    attach(ours)
    assert not file.exists()
