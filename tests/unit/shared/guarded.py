"""What a robust lock guards in its tests."""
from __future__ import annotations

import mmap

from prefork_lb.shared.lock import MUTEX_BYTES, RobustLock

# A mutex, then two numbers that are equal whenever nobody is inside.
SIZE = MUTEX_BYTES + 16


class Guarded:
    """Two numbers under a lock, in memory that forked processes share."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._view = memoryview(memory)
        self.pair = self._view[MUTEX_BYTES:SIZE].cast("q")
        self.repairs = 0
        self.lock = RobustLock(self._view, 0, self._repair)

    def _repair(self) -> None:
        self.repairs += 1
        self.pair[1] = self.pair[0]

    def step(self) -> None:
        """Count both up; raises if a step of somebody else was seen half done."""
        self.lock.acquire()
        try:
            one, other = self.pair
            if one != other:
                raise AssertionError(f"inside with a step half done: {one} and {other}")
            self.pair[0] = one + 1
            self.pair[1] = other + 1
        finally:
            self.lock.release()

    def close(self) -> None:
        self.lock.close()
        self.pair.release()
        self._view.release()
