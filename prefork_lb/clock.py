"""The clock: monotonic instants in seconds. Objects take it as an argument, so that tests control the time."""
from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns a monotonic instant in seconds. Only differences between instants have a meaning."""

monotonic: Clock = time.monotonic


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
