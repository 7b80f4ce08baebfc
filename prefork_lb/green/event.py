"""Waiting for another greenlet."""
from __future__ import annotations

from greenlet import getcurrent, greenlet

from prefork_lb.green.hub import Hub


class OneShotEvent:
    """One greenlet waits until another one calls `set`. After that `wait` returns at once."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._is_set = False
        self._waiter: greenlet | None = None

    def set(self) -> None:
        """End the present wait, and every later one."""
        self._is_set = True
        self._hub.call_at(self._hub.now, self._resume)

    def wait(self) -> None:
        """Wait until `set` was called."""
        while not self._is_set:
            self._waiter = getcurrent()
            try:
                self._hub.switch()
            finally:
                self._waiter = None

    def _resume(self) -> None:
        if self._waiter is not None:
            self._waiter.switch()
