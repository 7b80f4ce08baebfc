"""Waiting for another greenlet."""
from __future__ import annotations

from greenlet import getcurrent, greenlet

from prefork_lb.green.hub import Hub


class Gate:
    """Closed at first; one greenlet may wait until another one opens it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._is_open = False
        self._waiter: greenlet | None = None

    def open(self) -> None:
        """Let the waiter pass, now or when it comes."""
        self._is_open = True
        self._hub.call_at(self._hub.now, self._let_pass)

    def wait(self) -> None:
        """Wait until it is open."""
        while not self._is_open:
            self._waiter = getcurrent()
            try:
                self._hub.switch()
            finally:
                self._waiter = None

    def _let_pass(self) -> None:
        if self._waiter is not None:
            self._waiter.switch()
