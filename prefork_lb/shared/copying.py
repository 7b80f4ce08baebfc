"""A private copy of an instance's memory: what is tried out in it changes nothing for anybody else."""
from __future__ import annotations

import os

from prefork_lb.shared import layout as at
from prefork_lb.shared.lock import MUTEX_BYTES, RobustLock, initialise
from prefork_lb.shared.rows import Rows
from prefork_lb.shared.segment import Segment

_TRIES = 5


def private_copy(segment: Segment) -> Segment:
    """Copy a segment as it is at one moment. The copy's own lock is free.

    The lock is held while the copy is made, but for the table of learned sessions: that may have many MiB, and a hundred workers
    would wait. It is copied before, and again if it has changed meanwhile; only a table that changes all the time is copied under
    the lock.
    """
    layout, text = segment.layout, segment.text
    sessions_byte = at.CELL * layout.sessions_start
    table = _quiet_table(segment) if layout.sessions else bytes(text[sessions_byte:])
    lock = RobustLock(text, layout.lock_byte, Rows(segment).repair)
    lock.acquire()
    try:
        front = bytes(text[:sessions_byte])
        if table is None:
            table = bytes(text[sessions_byte:])
    finally:
        lock.release()
        lock.close()
    descriptor = os.memfd_create("prefork-lb-copy")
    os.ftruncate(descriptor, len(front) + len(table))
    copy = Segment(descriptor, segment.name, layout)
    copy.text[:] = front + table
    copy.text[layout.lock_byte:layout.lock_byte + MUTEX_BYTES] = bytes(MUTEX_BYTES)
    initialise(copy.text, layout.lock_byte)
    return copy


def _quiet_table(segment: Segment) -> bytes | None:
    """The table of learned sessions, from a time in which it did not change; None when there was no such time."""
    start = segment.layout.sessions_start
    for _ in range(_TRIES):
        changes = segment.cells[start + at.T_CHANGES]
        table = bytes(segment.text[at.CELL * start:])
        if changes % 2 == 0 and segment.cells[start + at.T_CHANGES] == changes:
            return table
    return None
