"""What clients were answered, counted over the life of an instance: by server, by pool, and what reached no pool.

Each worker counts in a block of its own, and no other process writes there while it lives. So counting takes no lock, and a
reader adds the blocks. When a worker has ended, its block is added to the past, exactly once, wherever the adding process is
killed: there are two blocks of the past, and one store of `H_FOLDS` says which of them counts, and which row is in it already.

    H_FOLDS = number of the fold << 16 | row + 1     the row's block is in the past, though it may not be cleared yet
              number of the fold << 16               no row is in between

Numbers of a server that has left are not cleared in the blocks of workers that live. A new server in its slot begins with
what the slot has by then left out: the last block, the base, is subtracted by the reader.
"""
from __future__ import annotations

import contextlib
import threading
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

from prefork_lb.native.loader import CountAnswer, native_tally
from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""The upper ends of the buckets of request times; the last bucket has none."""
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
OWN_CODES = ("4xx", "499", "500", "502", "503", "504")
"""Of answers that this proxy made itself. 499: the client left before there was an answer. 500: any other."""

_ROW_BITS = 16
_ROW = (1 << _ROW_BITS) - 1
_TRIES = 100
_OWN = {int(code): number for number, code in enumerate(OWN_CODES) if code.isdigit()}
_OTHER = OWN_CODES.index("500")
_LEFT = 499


class Tally:
    """A worker's own block of the statistics. Times are seconds."""

    def __init__(self, segment: Segment, row: int, one_thread: bool) -> None:
        """`one_thread`: no two threads of this process count at the same time."""
        layout = segment.layout
        self._cells = segment.cells[layout.statistics_block(row)]
        self._servers, self._pools = layout.statistics_server(0), layout.statistics_pool(0)
        self._lock: contextlib.AbstractContextManager[object] = contextlib.nullcontext() if one_thread else threading.Lock()
        module = native_tally()
        self._count = module.Tally(
            self._cells, (self._servers, at.STATISTICS_SERVER_CELLS), (self._pools, at.STATISTICS_POOL_CELLS),
            (at.S_RECEIVED, at.S_SENT, at.S_US), (at.S_BUCKETS, at.S_POOL_US), BOUNDS_S,
        ).count_answer if module else self._count_in_python
        self.count_answer: CountAnswer = self._count if one_thread else self._count_in_turn
        """Count a server's answer to a client: its slot, its pool's number, the status, bytes of the bodies from and to the
        client, and seconds from the request's head to the answer's end."""

    def _count_in_turn(self, slot: int, pool: int, status: int, received: int, sent: int, seconds: float, /) -> None:
        with self._lock:
            self._count(slot, pool, status, received, sent, seconds)

    def _count_in_python(self, slot: int, pool: int, status: int, received: int, sent: int, seconds: float, /) -> None:
        cells, server = self._cells, self._servers + at.STATISTICS_SERVER_CELLS * slot
        cells[server + min(status // 100, len(CLASSES)) - 1] += 1
        cells[server + at.S_RECEIVED] += received
        cells[server + at.S_SENT] += sent
        cells[server + at.S_US] += int(seconds * 1e6)
        self._count_time(pool, seconds)

    def _count_time(self, pool: int, seconds: float) -> None:
        cells, head = self._cells, self._pools + at.STATISTICS_POOL_CELLS * pool
        cells[head + at.S_BUCKETS + bisect_left(BOUNDS_S, seconds)] += 1
        cells[head + at.S_POOL_US] += int(seconds * 1e6)

    def count_own(self, pool: int, status: int, seconds: float) -> None:
        """This proxy has answered a request to a pool itself; status 499: the client left before that."""
        code = _OWN.get(status)
        if code is None:
            code = 0 if 400 <= status < 500 else _OTHER
        with self._lock:
            self._cells[self._pools + at.STATISTICS_POOL_CELLS * pool + at.S_OWN + code] += 1
            self._count_time(pool, seconds)

    def count_without_pool(self, status: int) -> None:
        """A request that reached no pool was answered with this status; 499: its client left before that."""
        with self._lock:
            self._cells[at.N_CODES + (len(CLASSES) if status == _LEFT else status // 100 - 1)] += 1

    def count_shed(self) -> None:
        """A request or connection was refused since the worker has too much to do."""
        with self._lock:
            self._cells[at.N_SHED] += 1

    def close(self) -> None:
        """Release the view, so that the memory can be unmapped."""
        self.count_answer = self._count = self._count_in_python  # the compiled one holds the buffer
        self._cells.release()


@dataclass(frozen=True, slots=True)
class ServerNumbers:
    """Of one server, over the life of the instance."""

    codes: dict[str, int]  # answers to clients, by class
    bytes_in: int  # of bodies, from clients
    bytes_out: int  # of bodies, to clients
    seconds: float  # from the requests' heads to the answers' ends, in all

    @property
    def answers(self) -> int:
        """Requests that the server answered."""
        return sum(self.codes.values())


@dataclass(frozen=True, slots=True)
class PoolNumbers:
    """Of one pool."""

    own: dict[str, int]  # requests that this proxy answered itself, by `OWN_CODES`
    buckets: list[int]  # all requests by the time that they took: up to each of `BOUNDS_S`, and more
    seconds: float  # that they took, in all


@dataclass(frozen=True, slots=True)
class InstanceNumbers:
    """What reached no pool."""

    codes: dict[str, int]  # by class of the answer; "499": the client left
    shed: int  # requests and connections refused since a worker had too much to do; those answered are in `codes`, too


class Numbers:
    """The statistics of an instance at one moment."""

    def __init__(self, segment: Segment) -> None:
        """Read them; needs no lock. The segment must have room for them."""
        self._layout = segment.layout
        self._values = _totals(segment)

    def server(self, slot: int) -> ServerNumbers:
        """Of the server in this slot."""
        values = self._part(self._layout.statistics_server(slot), at.STATISTICS_SERVER_CELLS)
        return ServerNumbers(dict(zip(CLASSES, values, strict=False)), values[at.S_RECEIVED], values[at.S_SENT],
                             values[at.S_US] / 1e6)

    def pool(self, number: int) -> PoolNumbers:
        """Of the pool with this number."""
        values = self._part(self._layout.statistics_pool(number), at.STATISTICS_POOL_CELLS)
        return PoolNumbers(dict(zip(OWN_CODES, values, strict=False)),
                           values[at.S_BUCKETS:at.S_BUCKETS + len(BOUNDS_S) + 1], values[at.S_POOL_US] / 1e6)

    @property
    def instance(self) -> InstanceNumbers:
        """What reached no pool."""
        values = self._part(0, at.STATISTICS_HEAD_CELLS)
        return InstanceNumbers(dict(zip((*CLASSES, str(_LEFT)), values, strict=False)), values[at.N_SHED])

    def _part(self, start: int, size: int) -> list[int]:
        return self._values[start:start + size]


def fold(segment: Segment, row: int) -> None:
    """Add the statistics of a row whose worker has ended to the past, and clear them. The ledger's lock must be held."""
    cells, layout = segment.cells, segment.layout
    if not layout.statistics:
        return
    _end_fold(segment)
    block = cells[layout.statistics_block(row)].tolist()
    if not any(block):
        return
    number = cells[at.H_FOLDS] >> _ROW_BITS
    old, new = _past(segment, number), _past(segment, number + 1)
    cells[new] = array("q", map(add, cells[old].tolist(), block))
    cells[at.H_FOLDS] = number + 1 << _ROW_BITS | row + 1
    _end_fold(segment)


def start_server(segment: Segment, slot: int) -> None:
    """Let the numbers of this slot begin at 0: it is given to a server. The ledger's lock must be held."""
    _start(segment, segment.layout.statistics_server(slot), at.STATISTICS_SERVER_CELLS)


def start_pool(segment: Segment, number: int) -> None:
    """Let the numbers of the pool with this number begin at 0. The ledger's lock must be held."""
    _start(segment, segment.layout.statistics_pool(number), at.STATISTICS_POOL_CELLS)


def _start(segment: Segment, start: int, size: int) -> None:
    cells, layout = segment.cells, segment.layout
    if not layout.statistics:
        return
    _end_fold(segment)
    blocks = [_past(segment, cells[at.H_FOLDS] >> _ROW_BITS), *map(layout.statistics_block, segment.rows_in_use())]
    parts = [cells[block.start + start:block.start + start + size].tolist() for block in blocks]
    base = _base(segment).start + start
    cells[base:base + size] = array("q", map(sum, zip(*parts, strict=True)))


def _end_fold(segment: Segment) -> None:
    """Clear the row that is in the past already: one whose fold goes on, or was broken off."""
    cells = segment.cells
    folds = cells[at.H_FOLDS]
    if row := folds & _ROW:
        block = segment.layout.statistics_block(row - 1)
        cells[block] = array("q", bytes((block.stop - block.start) * at.CELL))
        cells[at.H_FOLDS] = folds & ~_ROW


def _past(segment: Segment, number: int) -> slice:
    """The past after so many folds."""
    return segment.layout.statistics_block(segment.layout.rows + number % 2)


def _base(segment: Segment) -> slice:
    return segment.layout.statistics_block(segment.layout.rows + 2)


def _totals(segment: Segment) -> list[int]:
    """A block with the sums over all rows and the past, less the base."""
    cells, layout = segment.cells, segment.layout
    total: Sequence[int] = ()
    for _ in range(_TRIES):
        folds = cells[at.H_FOLDS]
        total = cells[_past(segment, folds >> _ROW_BITS)].tolist()
        for row in segment.rows_in_use():
            if row + 1 != folds & _ROW:
                total = list(map(add, total, cells[layout.statistics_block(row)]))
        if cells[at.H_FOLDS] == folds:
            break
    # Not below 0: a slot is given to another server at this moment.
    return [max(0, number - left_out) for number, left_out in zip(total, cells[_base(segment)].tolist(), strict=True)]
