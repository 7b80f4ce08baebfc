"""Answers that are remembered for a while, a bounded number of them."""
from __future__ import annotations

import contextlib
from typing import Generic, TypeVar

from prefork_lb.clock import Clock

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """The newest answers, each until its time is over. Several threads use it at once; every step is one operation of a dict."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most, self._clock = most, clock
        self._found: dict[Key, tuple[float, Value]] = {}  # in the order in which they came

    def __contains__(self, key: Key) -> bool:
        found = self._found.get(key)
        return found is not None and found[0] > self._clock()

    def get(self, key: Key) -> Value | None:
        """The answer; None: there is none, or its time is over."""
        found = self._found.get(key)
        return found[1] if found is not None and found[0] > self._clock() else None

    def put(self, key: Key, value: Value, seconds: float) -> None:
        """Remember an answer. The oldest one is forgotten when there are too many."""
        until = self._clock() + seconds
        self._found.pop(key, None)
        self._found[key] = until, value
        # Another thread may change the dict between two steps; then that thread, or the next answer, makes the room.
        with contextlib.suppress(KeyError, StopIteration, RuntimeError):
            while len(self._found) > self._most:
                del self._found[next(iter(self._found))]
