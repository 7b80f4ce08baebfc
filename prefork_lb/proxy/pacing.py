"""The pace of a response whose route limits its bandwidth."""
from __future__ import annotations

from prefork_lb.routing.serving import Bandwidth

# What was not used may go at once, up to so many seconds' worth. A piece is half of it, so the time of a late one is not lost. A
# limited response costs its worker eight sends a second.
_BURST_S = 0.25


class Pace:
    """How much of a response's body may go to its client: in a time t at most `after + per_second * (t + 0.25)` bytes."""

    def __init__(self, bandwidth: Bandwidth, now: float) -> None:
        """`now` and other instants are of one monotonic clock, in seconds."""
        self._per_second = bandwidth.per_second
        self._burst = bandwidth.per_second * _BURST_S
        self._left = bandwidth.after + self._burst
        self._seen = now

    def most(self, wanted: int, now: float) -> int:
        """How many of the `wanted` bytes may go now; 0: wait first, until they are worth a send."""
        if self._left < self._burst:
            self._left = min(self._burst, self._left + self._per_second * (now - self._seen))
        self._seen = now
        return min(wanted, int(self._left + 0.5)) if self._left >= self._piece(wanted) - 0.5 else 0

    def wait_s(self, wanted: int) -> float:
        """Seconds from the last look by `most` until it gives more than 0."""
        return max(0.0, self._piece(wanted) - self._left) / self._per_second

    def spend(self, count: int) -> None:
        """So many bytes have gone."""
        self._left -= count

    def _piece(self, wanted: int) -> float:
        return min(wanted, self._burst / 2)
