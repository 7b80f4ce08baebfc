"""Percentiles of request times, from the buckets of a histogram."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.shared.statistics import BOUNDS_S


def percentile_ms(counts: Sequence[float], share: float) -> float | None:
    """The time in milliseconds that this share of the requests did not exceed, as far as the buckets tell; None without requests.

    `counts` has a number for each bucket of `BOUNDS_S`, and the last one for what took longer. Between the bounds of a bucket the
    requests count as evenly spread.
    """
    left = share * sum(counts)
    if not left:
        return None
    low = 0.0
    for count, high in zip(counts, BOUNDS_S, strict=False):
        if count >= left:
            return round(1000 * (low + (high - low) * left / count), 3)
        left -= count
        low = high
    return 1000 * BOUNDS_S[-1]
