"""What filters have in shared memory: a block each of the filter's own integers and of counts of what went wrong.

Filters are known by their class and settings, so workers, reloads and upgrades find the block again. When all are taken, a new
filter gets the one that was entered longest ago: a replaced worker that lingers over so many reloads then shares it.
"""
from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import now_ms
from prefork_lb.shared.text import read_note, write_note


@dataclass(frozen=True, slots=True)
class FilterCounts:
    """Of all filters of a class, over the life of their blocks."""

    name: str
    failures: int  # exceptions
    late: int  # calls over the time limit


class FilterBlock:
    """A process' hand on one block."""

    def __init__(self, segment: Segment, ledger: Ledger, number: int) -> None:
        start = segment.layout.filter_block(number)
        own = start + at.FILTER_HEAD_CELLS + at.NOTE_BYTES // at.CELL
        self.cells = segment.cells[own:own + at.FILTER_CELLS]
        self._head = segment.cells[start:start + at.FILTER_HEAD_CELLS]
        self._ledger = ledger

    def count_failure(self) -> None:
        """The filter has raised an exception."""
        self._count(at.G_FAILURES)

    def count_late(self) -> None:
        """A call was over the time limit."""
        self._count(at.G_LATE)

    def _count(self, cell: int) -> None:
        with self._ledger.locked():
            self._head[cell] += 1


def enter_filters(segment: Segment, ledger: Ledger, filters: Sequence[tuple[str, str]]) -> list[FilterBlock]:
    """The blocks of these filters, each given by its class and its settings. There must be room for all. Takes the lock."""
    keys = [_key(name, settings) for name, settings in filters]
    with ledger.locked():
        numbers = _enter(segment, dict(zip(keys, (name for name, _ in filters), strict=True)))
        return [FilterBlock(segment, ledger, numbers[key]) for key in keys]


def filter_counts(segment: Segment) -> list[FilterCounts]:
    """What went wrong, by class. Needs no lock."""
    found: dict[str, list[int]] = {}
    for number in range(segment.layout.filters):
        start = segment.layout.filter_block(number)
        if segment.cells[start + at.G_KEY]:
            name = read_note(segment.text, (start + at.FILTER_HEAD_CELLS) * at.CELL)
            counts = found.setdefault(name, [0, 0])
            counts[0] += segment.cells[start + at.G_FAILURES]
            counts[1] += segment.cells[start + at.G_LATE]
    return [FilterCounts(name, *counts) for name, counts in sorted(found.items())]


def _key(name: str, settings: str) -> int:
    digest = hashlib.blake2b(f"{name}\0{settings}".encode(), digest_size=8).digest()
    return int(struct.unpack("<q", digest)[0]) or 1


def _enter(segment: Segment, names: Mapping[int, str]) -> dict[int, int]:
    """The numbers of the blocks of filters, by their keys; `names` are their classes. The lock must be held."""
    cells, layout = segment.cells, segment.layout
    starts = [layout.filter_block(number) for number in range(layout.filters)]
    numbers = {cells[start + at.G_KEY]: number for number, start in enumerate(starts) if cells[start + at.G_KEY] in names}
    # The blocks of other filters, and free ones, which were entered at 0.
    others = set(range(layout.filters)).difference(numbers.values())
    oldest_first = sorted(others, key=lambda number: cells[starts[number] + at.G_ENTERED])
    for key, number in zip([key for key in names if key not in numbers], oldest_first, strict=False):
        _begin(segment, starts[number], key, names[key])
        numbers[key] = number
    for number in numbers.values():
        cells[starts[number] + at.G_ENTERED] = max(1, now_ms())
    return numbers


def _begin(segment: Segment, start: int, key: int, name: str) -> None:
    """Make the block that begins at this cell that of a new filter. The lock must be held."""
    cells = segment.cells
    # The key last: a worker that is killed in between leaves a block of no filter.
    cells[start + at.G_KEY] = 0
    for cell in range(start, start + at.FILTER_BLOCK_CELLS):
        cells[cell] = 0
    write_note(segment.text, (start + at.FILTER_HEAD_CELLS) * at.CELL, name)
    cells[start + at.G_KEY] = key
