"""Tests in which a peer has a time limit: what happened while this process stood still says nothing."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

_LOOK_S = 0.01
_MOST_ATTEMPTS = 5


class Standstill(threading.Thread):
    """Tells the longest time for which this process did not run. A context manager."""

    def __init__(self) -> None:
        super().__init__(name="standstill", daemon=True)
        self.longest_s = 0.0
        self._end = threading.Event()

    def __enter__(self) -> Standstill:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        looked = time.monotonic()
        while not self._end.wait(_LOOK_S):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - looked)
            looked = now


def undisturbed(attempt: Callable[[], Value], within_s: float) -> Value:
    """What `attempt` returns. If it fails, and this process stood still for as long as `within_s` meanwhile, it is made again."""
    left = _MOST_ATTEMPTS
    while True:
        left -= 1
        with Standstill() as standstill:
            try:
                return attempt()
            except Exception as exc:
                failure = exc
        if not left or standstill.longest_s < within_s:
            raise failure
