"""A mapped segment: the shared memory of one instance, as integers and as bytes.

A segment is a file in /dev/shm that every process of the instance maps. Each process also keeps the descriptor open: when the
file's name has been removed, the mapping stays, and other processes find the memory through the descriptor (see `finding`).
`multiprocessing.shared_memory` is not used: it starts a resource tracker process for each worker, which removes the segment
when the first worker ends, while the other workers use it (CPython issue 82300).
"""
from __future__ import annotations

import mmap
import os
import weakref

from prefork_lb.errors import PreforkLBError
from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.offsets import Layout


class SegmentError(PreforkLBError):
    """The shared memory cannot be used. The message says what was tried, why it failed, and the way out."""


class Segment:
    """A mapped segment. `cells` is its memory as signed 64-bit integers, `text` the same as bytes."""

    def __init__(self, descriptor: int, name: str, layout: Layout) -> None:
        """Map the file behind `descriptor`, and own the descriptor from now on. `name` is the file's name in /dev/shm."""
        self.name = name
        self.layout = layout
        self.descriptor = descriptor
        self._close_descriptor = weakref.finalize(self, os.close, descriptor)
        self._memory = mmap.mmap(descriptor, layout.size)
        self.text: memoryview = memoryview(self._memory)
        self.cells: memoryview = self.text.cast("q")

    def close(self) -> None:
        """Detach. Every view of this memory must have been released before. Raises BufferError otherwise."""
        self.cells.release()
        self.text.release()
        self._memory.close()
        self._close_descriptor()

    def masters(self) -> list[int]:
        """The pids of this instance's living gunicorn masters, oldest first."""
        return living_masters(self.cells)

    def rows_in_use(self) -> list[int]:
        """The rows that a worker has, dead or alive. May change while the ledger's lock is not held."""
        cells, layout = self.cells, self.layout
        return [row for row in range(layout.rows) if cells[layout.row(row) + at.R_PID]]

    @property
    def secret(self) -> bytes:
        """Random bytes of this instance, the same for as long as it lives."""
        start = self.layout.secret_byte
        return bytes(self.text[start:start + at.SECRET_BYTES])

    @property
    def is_removed(self) -> bool:
        """Whether the file's name has been removed. The mapping stays valid."""
        return os.fstat(self.descriptor).st_nlink == 0


def map_segment(descriptor: int, name: str) -> Segment | None:
    """The segment behind an open descriptor; None if it is incomplete or has another version's format.

    The descriptor then belongs to the segment; without a segment it is closed.
    """
    header = read_header(descriptor)
    if header is not None and header[at.H_MAGIC] == at.MAGIC and header[at.H_VERSION] == at.VERSION:
        layout = Layout(header[at.H_ROWS], header[at.H_SERVERS], header[at.H_POOLS], header[at.H_CONFIGURATION_BYTES],
                        header[at.H_OWN_LINES], header[at.H_SESSIONS], header[at.H_ANSWER_TIMES], header[at.H_STATISTICS],
                        header[at.H_RATES], header[at.H_KEYS], header[at.H_FILTERS], header[at.H_RATE_USES])
        if os.fstat(descriptor).st_size >= layout.size:
            return Segment(descriptor, name, layout)
    os.close(descriptor)
    return None


def read_header(descriptor: int) -> memoryview | None:
    """A copy of the header's cells; None when the file is shorter than that."""
    data = os.pread(descriptor, at.HEADER_CELLS * at.CELL, 0)
    return memoryview(data).cast("q") if len(data) == at.HEADER_CELLS * at.CELL else None


def living_masters(cells: memoryview) -> list[int]:
    """The living masters that a header lists, of this version or of another one: their place never moves."""
    pairs = [(cells[i + 1], cells[i]) for i in range(at.H_MASTERS, at.H_MASTERS + 2 * at.MASTERS, 2)]
    return [pid for start, pid in sorted(pairs) if is_alive(pid, start)]
