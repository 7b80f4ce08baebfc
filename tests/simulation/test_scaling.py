"""A day of a pool that scales costs about half of the servers of a fixed pool. The day lasts a quarter of an hour here, which is
harder for the rule, and far more of the requests come while servers start. `benchmarks.scaling` has the whole day."""
from __future__ import annotations

from benchmarks import scaling


def test_a_day_of_a_pool_that_scales() -> None:
    day = scaling.live(None, seed=1, speed=100)
    assert day.requests > 100_000 and day.refused == 0
    assert day.server_s <= 0.55 * scaling.peak_need() * scaling.DAY_S
    assert day.p50_ms < 60 and day.p99_ms < 500
