"""The other side of a stream, which may leave when the test says so."""
from __future__ import annotations

from collections.abc import Callable


class Watching:
    """Something `watched` whose going is what a function tells."""

    def __init__(self, gone: Callable[[], bool]) -> None:
        self._gone = gone
        self.waiting: object = None

    def is_gone(self) -> bool:
        return self._gone()
