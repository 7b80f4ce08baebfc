"""How long a pool's responses take: a histogram that forgets."""
from __future__ import annotations

from typing import Final

# Buckets for each factor of two. With one, a percentile would be off by up to 100 %, and hedging waits for a percentile.
_STEPS: Final = 8
_BUCKETS: Final = 32 * _STEPS  # from 1 us to more than an hour
_HALVED_AT: Final = 4096  # samples
_MOST_TAKEN: Final = 200  # samples at a time: evenly of all that have come, since each costs a microsecond


class ResponseTimes:
    """Times from a request to the head of its response, in seconds; the last thousands count, older ones less and less."""

    __slots__ = ("_buckets", "_count", "_new", "note")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self._count = 0
        self._new: list[float] = []
        self.note = self._new.append
        """Add a sample: each request does, so it does no more than that."""

    def take_in(self) -> None:
        """Count the new samples, or some of them. To be called a few times a second."""
        count = len(self._new)
        for seconds in self._new[:count:1 + count // _MOST_TAKEN]:
            us = int(seconds * 1e6) + 1
            bits = us.bit_length()
            self._buckets[bits * _STEPS + (us << 3 >> bits - 1 & 7) if bits < 32 else _BUCKETS - 1] += 1
            self._count += 1
        del self._new[:count]
        if self._count >= _HALVED_AT:
            self._buckets = [count >> 1 for count in self._buckets]
            self._count = sum(self._buckets)

    def percentile(self, share: float) -> float:
        """The time within which this share of the responses came, to a tenth more; 0 before there are 20."""
        self.take_in()
        if self._count < 20:
            return 0.0
        left = share * self._count
        for bucket, count in enumerate(self._buckets):
            left -= count
            if left <= 0 and count:
                bits, step = divmod(bucket, _STEPS)
                return (1 << bits - 1) * (1 + (step + 1) / _STEPS) / 1e6
        return 0.0

    def median(self) -> float:
        """The usual time; 0 before there are 20 samples."""
        return self.percentile(0.5)
