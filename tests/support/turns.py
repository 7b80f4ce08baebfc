"""Lets tests of several processes run side by side, and a test that measures run while the others pause.

flock(2) alone would do, but it knows no order: as long as one process or another holds the lock shared, a process that wants it
for itself waits, for minutes while the others go from test to test. So a process first takes its place in a line: a second lock,
held until it has the first one. A test that came later stands behind it.
"""
from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Turns:
    """The turns of one process. Two folders that all processes have serve as locks, so that no file is left behind."""

    def __init__(self, lock: Path, line: Path) -> None:
        self._lock, self._line = (os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (lock, line))
        self._is_alone = False

    def take(self, alone: bool) -> None:
        """Wait until no test runs `alone`, or no test at all if this one does. Must be given back.

        A turn alone that has not been given back is kept: the first in line waits for this process.
        """
        if self._is_alone and alone:
            return
        fcntl.flock(self._line, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            self._is_alone = alone
        finally:
            fcntl.flock(self._line, fcntl.LOCK_UN)

    def give_back(self) -> None:
        """Let the next ones have their turn. Does nothing without a turn."""
        self._is_alone = False
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give back, and let go of the locks."""
        os.close(self._lock)
        os.close(self._line)
