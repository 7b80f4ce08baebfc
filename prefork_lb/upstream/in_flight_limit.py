"""A limit on what a whole pool has in flight, over all workers: its circuit breaker."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger


class InFlightLimit:
    """Refuses requests while `most` are in flight on the pool's servers."""

    def __init__(self, ledger: Ledger, slots: Sequence[int], cells: memoryview, most: int) -> None:
        """`cells` are the pool's block in shared memory, in which refusals are counted."""
        self.most = most
        self._ledger = ledger
        self._slots = slots
        self._cells = cells

    def is_reached(self) -> bool:
        """Whether one more would be too many. The ledger's lock must be held."""
        totals = self._ledger.totals
        return sum(totals[slot] for slot in self._slots) >= self.most

    def count_refusal(self) -> None:
        """A request was refused for it. The ledger's lock must be held."""
        self._cells[at.P_REFUSED] += 1
