"""What was measured within the last seconds. Times are those of the caller's clock; they never go back."""
from __future__ import annotations

from collections import deque


class Average:
    """The mean of samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._total = 0.0

    def add(self, now: float, value: float) -> None:
        """Take a sample."""
        self._samples.append((now, value))
        self._total += value

    def over(self, now: float, seconds: float) -> float:
        """The mean of the last seconds; older samples are forgotten. Of none: 0."""
        samples = self._samples
        while samples and samples[0][0] <= now - seconds:
            self._total -= samples.popleft()[1]
        if not samples:
            self._total = 0.0  # so that what rounding left does not stay for ever
        return self._total / len(samples) if samples else 0.0


class Largest:
    """The largest of some numbers."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()  # falling: what is smaller than a later one is never the largest again

    def add(self, now: float, value: int) -> None:
        """Take a sample."""
        while self._samples and self._samples[-1][1] <= value:
            self._samples.pop()
        self._samples.append((now, value))

    def over(self, now: float, seconds: float) -> int:
        """The largest of the last seconds, at least the last one; older ones are forgotten. Of none: 0."""
        samples = self._samples
        while len(samples) > 1 and samples[0][0] <= now - seconds:
            samples.popleft()
        return samples[0][1] if samples else 0


class Growth:
    """By how much two counters have grown."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, float]] = deque()

    def add(self, now: float, first: int, second: float) -> None:
        """Take a sample."""
        self._samples.append((now, first, second))

    def over(self, now: float, seconds: float) -> tuple[int, float]:
        """The growth within the last seconds; older samples are forgotten."""
        samples = self._samples
        while len(samples) > 1 and samples[1][0] <= now - seconds:
            samples.popleft()
        if not samples:
            return 0, 0.0
        return samples[-1][1] - samples[0][1], samples[-1][2] - samples[0][2]
