"""Percentiles from buckets."""
from __future__ import annotations

import pytest

from prefork_lb.observe.percentiles import percentile_ms
from prefork_lb.shared.statistics import BOUNDS_S


def buckets(**counts: int) -> list[int]:
    """Numbers by bucket: `b0=5` are five requests in the first one."""
    return [counts.get(f"b{number}", 0) for number in range(len(BOUNDS_S) + 1)]


@pytest.mark.parametrize(("counts", "share", "expected"), [
    (buckets(), 0.5, None),
    (buckets(b0=100), 0.5, 0.5),
    (buckets(b0=100), 1.0, 1.0),
    (buckets(b0=50, b3=50), 0.5, 1.0),
    (buckets(b0=50, b3=50), 0.75, 7.5),
    (buckets(b15=1), 0.5, 60000.0),
    (buckets(b0=99, b15=1), 0.99, 1.0),
])
def test_a_percentile_lies_in_its_bucket(counts: list[int], share: float, expected: float | None) -> None:
    assert percentile_ms(counts, share) == expected
