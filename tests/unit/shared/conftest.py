"""Segments in the machine's own shared memory, each of an instance that only the test has."""
from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork_lb.shared.finding import DIRECTORY, segment_names
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.lock import initialise
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import register
from tests.unit.shared.guarded import SIZE, Guarded
from tests.unit.shared.instance import Instance
from tests.unit.shared.processes import Master, Signals
from tests.unit.shared.saving import entries

ROWS, SERVERS = 8, 8

NewMaster = Callable[[], Master]


@pytest.fixture
def new_master() -> Iterator[Callable[[], Master]]:
    """Makes processes that stand in for gunicorn masters; they end, and their segments go, with the test."""
    masters: list[Master] = []

    def make() -> Master:
        masters.append(Master())
        return masters[-1]

    yield make
    for master in masters:
        master.kill()
    for name in segment_names(os.geteuid()):
        if any(name.endswith(f"-{master.pid}-{master.started}") for master in masters):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(DIRECTORY / name)


@pytest.fixture
def master(new_master: Callable[[], Master]) -> Master:
    return new_master()


@pytest.fixture
def segment(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(ROWS, SERVERS, SERVERS))


@pytest.fixture
def new_signals() -> Iterator[Callable[[], Signals]]:
    made: list[Signals] = []

    def make() -> Signals:
        made.append(Signals())
        return made[-1]

    yield make
    for signals in made:
        signals.close()


@pytest.fixture
def signals(new_signals: Callable[[], Signals]) -> Signals:
    return new_signals()


def name_of(master: Master) -> str:
    return f"prefork-lb-{os.geteuid()}-{master.pid}-{master.started}"


def attach(master: Master, predecessor: int = 0) -> Segment:
    return attach_or_create(master.pid, Layout(ROWS, SERVERS, SERVERS), predecessor)


@pytest.fixture
def file(master: Master) -> Path:
    """Where the segment of `master` is, or will be."""
    return DIRECTORY / name_of(master)


def write(file: Path, cells: dict[int, int], size: int) -> None:
    data = bytearray(size)
    with memoryview(data).cast("q") as view:
        for cell, value in cells.items():
            view[cell] = value
    file.write_bytes(data)
    file.chmod(0o600)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    memory = mmap.mmap(-1, SIZE)
    with memoryview(memory) as view:
        initialise(view, 0)
    guarded = Guarded(memory)
    yield guarded
    guarded.close()
    memory.close()


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    return Ledger(segment)


@pytest.fixture
def slots(segment: Segment, ledger: Ledger) -> list[int]:
    return list(register(segment, ledger, entries("web"))["web"].slots)


@pytest.fixture
def new_segment(new_master: NewMaster) -> Segment:
    return attach_or_create(new_master().pid, Layout(4, 8, 8))


@pytest.fixture
def instance(segment: Segment) -> Instance:
    return Instance(segment)
