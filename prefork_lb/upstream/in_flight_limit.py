"""A limit on what a whole pool has in flight, over all workers: its circuit breaker."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.refusals import count_refusal


class InFlightLimit:
    """Refuses requests while `most` are in flight on the pool's servers."""

    def __init__(self, ledger: Ledger, slots: Sequence[int], pool: int, most: int) -> None:
        """`pool` is the pool's number in shared memory."""
        self.most = most
        self._ledger = ledger
        self._slots = slots
        self._pool = pool

    def use(self, slots: Sequence[int]) -> None:
        """The pool has the servers in these slots from now on."""
        self._slots = slots

    def is_reached(self) -> bool:
        """Whether one more would be too many. The ledger's lock must be held."""
        totals = self._ledger.totals
        return sum(totals[slot] for slot in self._slots) >= self.most

    def count_refusal(self) -> None:
        """A request was refused for it. The ledger's lock must be held."""
        count_refusal(self._ledger.segment, self._pool,
                      f"requests are refused: {self.most} are in flight, which is breaker.in_flight")
