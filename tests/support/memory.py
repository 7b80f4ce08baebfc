"""A process's private memory, sampled while something happens."""
from __future__ import annotations

import threading

from tests.support.processes import private_bytes

EVERY_S = 0.01


class MemoryWatch:
    """Samples a process's private memory in the background; a context manager. `peak` and `samples` tell the rest."""

    def __init__(self, pid: int) -> None:
        self.before = self.peak = private_bytes(pid)
        self.samples = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.peak = max(self.peak, private_bytes(self._pid))
            self.samples += 1

    @property
    def growth(self) -> int:
        """By how many bytes the memory exceeded its first value at most."""
        return self.peak - self.before
