"""The metrics of an instance as lines for StatsD.

StatsD has no labels: their values become parts of the name, with "_" for what a name cannot have, and "-" for an empty one. It
adds up counters itself, so only what they have grown since the lines before is written. It would make percentiles from single
times, which nobody keeps here: those of the time between, from the histogram's buckets, are written as gauges.
"""
from __future__ import annotations

import re
from collections.abc import Iterator

from prefork_lb.observe.metric_table import FAMILIES, Family, Sample
from prefork_lb.observe.percentiles import percentile_ms
from prefork_lb.shared.view import InstanceView, PoolView

_LEFT_OUT = ("build_info", "start_time_seconds", "server_state")
"""Their labels say all, and have no place in a name."""
_SHARES = {"p50": 0.5, "p99": 0.99}
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")

_Key = tuple[str, str, tuple[str, ...]]  # of the family, the sample's ending, and its labels


class StatsD:
    """Remembers the counters of before. The first lines have gauges alone."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._counters: dict[_Key, float] | None = None
        self._buckets: dict[str, list[int]] = {}  # by pool

    def lines(self, seen: InstanceView) -> list[str]:
        """What there is to send at this moment."""
        found, counters = [], {}
        for family in FAMILIES:
            if family.name in _LEFT_OUT:
                continue
            for sample in family.samples(seen):
                if family.kind == "gauge":
                    found.append(self._line(family.name, sample, sample[2], "g"))
                elif not sample[0].endswith("_bucket"):
                    counters[family.name, *sample[:2]] = sample[2]
                    found += self._growth(family, sample)
        for pool in seen.pools:
            found += self._percentiles(pool)
        self._counters = counters
        return found

    def _growth(self, family: Family, sample: Sample) -> Iterator[str]:
        if self._counters is not None:
            value, before = sample[2], self._counters.get((family.name, *sample[:2]), 0)
            # A counter that is less than before is that of another server, and began at 0.
            if grown := value - before if value >= before else value:
                yield self._line(family.name.removesuffix("_total"), sample, grown, "c")

    def _percentiles(self, pool: PoolView) -> Iterator[str]:
        if pool.numbers is None:
            return
        before, self._buckets[pool.name] = self._buckets.get(pool.name), pool.numbers.buckets
        if before is not None:
            grown = [max(0, now - then) for now, then in zip(pool.numbers.buckets, before, strict=True)]
            for name, share in _SHARES.items():
                if (value := percentile_ms(grown, share)) is not None:
                    yield self._line(f"request_{name}_ms", ("", (pool.name,), 0), value, "g")

    def _line(self, name: str, sample: Sample, value: float, kind: str) -> str:
        parts = [self._prefix, name + sample[0], *(_NO_NAME.sub("_", label) or "-" for label in sample[1])]
        return f"{'.'.join(parts)}:{int(value) if value == int(value) else f'{value:.6f}'}|{kind}"
