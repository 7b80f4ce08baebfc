"""Rates from counters: how much each has grown over the last seconds."""
from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping

from prefork_lb.clock import Clock, monotonic

Counters = Mapping[Hashable, float]


class CounterRates:
    """Remembers the counters of some seconds."""

    def __init__(self, seconds: float, clock: Clock = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._looks: deque[tuple[float, Counters]] = deque()
        self._span_s = 0.0

    def note(self, counters: Counters) -> None:
        """Take over the counters of this moment."""
        now = self._clock()
        self._looks.append((now, counters))
        # The oldest one kept is at least as old as the window, so that a full window is compared.
        while len(self._looks) > 2 and self._looks[1][0] <= now - self._seconds:
            self._looks.popleft()
        self._span_s = now - self._looks[0][0]

    def of(self, name: Hashable) -> float:
        """How much a counter has grown in the window; 0 for one that is new or has begun anew."""
        before = self._looks[0][1].get(name)
        return max(0.0, self._looks[-1][1].get(name, 0) - before) if before is not None else 0.0

    def rate(self, *names: Hashable) -> float | None:
        """How much these counters grow in a second, together; None at the first look."""
        return round(sum(map(self.of, names)) / self._span_s, 3) if self._span_s else None
