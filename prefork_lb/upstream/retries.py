"""Which failures a pool retries, and how many retries it may make: a budget that all workers share."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.refusals import count_refusal
from prefork_lb.shared.states import now_ms

_WINDOW_MS = 10_000


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Of a pool; see config.pool.RetriesConfig."""

    attempts: int = 2
    conditions: frozenset[str] = frozenset(("connect", "reset"))
    statuses: frozenset[int] = frozenset()
    backoff_s: float = 0.025
    body_memory: int = 65536
    body_limit: int = 1 << 20
    hedge: bool = False


class RetryBudget:
    """Retries at most in percent of the requests of the last ten seconds, over all workers, and never less than a floor.

    Two windows of ten seconds are counted. The older one counts in proportion to its part within the last ten seconds.
    """

    def __init__(self, ledger: Ledger, cells: memoryview, number: int, slots: Sequence[int], percent: int, floor: int,
                 most_at_once: int) -> None:
        """`cells` are the pool's block in shared memory, `number` is its number; `most_at_once` 0: no limit."""
        self._ledger = ledger
        self._cells = cells
        self._number = number
        self._slots = slots
        self._percent = percent
        self._floor = floor
        self._most_at_once = most_at_once

    def use(self, slots: Sequence[int]) -> None:
        """The pool has the servers in these slots from now on."""
        self._slots = slots

    def take(self, is_hedge: bool = False) -> bool:
        """Whether one more retry may begin. If so, `give_back` is to be called at its end. `is_hedge`: no attempt has failed, the
        retry goes on beside the first attempt."""
        cells = self._cells
        with self._ledger.locked():
            if self._most_at_once and self._ledger.retries_under_way(self._number) >= self._most_at_once:
                count_refusal(self._ledger.segment, self._number,
                              f"retries are refused: {self._most_at_once} are under way, which is breaker.retries")
                return False
            now, requests = now_ms(), self._ledger.requests(self._slots)
            age = now - cells[at.P_WINDOW]
            if age >= _WINDOW_MS:
                is_next = age < 2 * _WINDOW_MS
                cells[at.P_LAST_RETRIES] = cells[at.P_RETRIES] if is_next else 0
                cells[at.P_LAST_REQUESTS] = requests - cells[at.P_REQUESTS] if is_next else 0
                cells[at.P_WINDOW] = now - age % _WINDOW_MS if is_next else now
                cells[at.P_RETRIES], cells[at.P_REQUESTS] = 0, requests
                age = now - cells[at.P_WINDOW]
            left = 1 - age / _WINDOW_MS
            retries = cells[at.P_RETRIES] + left * cells[at.P_LAST_RETRIES]
            of = requests - cells[at.P_REQUESTS] + left * cells[at.P_LAST_REQUESTS]
            if retries >= max(self._floor, of * self._percent / 100):
                return False
            cells[at.P_RETRIES] += 1
            cells[at.P_HEDGED if is_hedge else at.P_RETRIED] += 1
            self._ledger.count_retry(self._number, 1)
            return True

    def give_back(self) -> None:
        """The retry has ended."""
        with self._ledger.locked():
            self._ledger.count_retry(self._number, -1)
