"""The mirror of a route: another pool gets copies of a share of its requests."""
from __future__ import annotations

from prefork_lb.routing.spread import Spread

_PARTS = 1_000_000


class Mirror:
    """The pool, and which requests are copied."""

    def __init__(self, pool: str, share: float, start: int) -> None:
        """`share` is a number from 0 to 1. `start` is for the sequence of choices."""
        self.pool = pool
        self.share = share
        self._spread = Spread(start)

    def is_due(self) -> bool:
        """Whether the next request is one of the share."""
        return self._spread.below(_PARTS) < self.share * _PARTS
