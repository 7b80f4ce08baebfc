"""The numbers of an instance for Prometheus: text, and OpenMetrics for those who ask for it.

`metric_table` has all of them; docs/metrics.md shows them as a table. Numbers are read from shared memory at each scrape, over
all workers, so it does not matter which process answers.

The library writes the text. It takes 8 microseconds for a line, and 500 servers are 12,000 lines. So what it wrote is kept: of
each line the part before the number. At the next scrape only numbers are written, unless a server or a pool has come or gone.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from prefork_lb.observe.metric_table import FAMILIES, PREFIX, Family, Sample
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.view import view

_OPENMETRICS = "application/openmetrics-text"
_END = "# EOF\n"


class _Text:
    """One of the two formats."""

    def __init__(self, is_open: bool) -> None:
        self._is_open = is_open
        self._kept: dict[str, _Kept] = {}

    def write(self, segment: Segment, sessions: Mapping[tuple[str, str], int]) -> bytes:
        """All metrics of this moment."""
        seen = view(segment, sessions)
        parts = [self._family(family, list(family.samples(seen))) for family in FAMILIES]
        return "".join((*parts, _END) if self._is_open else parts).encode()

    def _family(self, family: Family, samples: list[Sample]) -> str:
        keys = [(suffix, values) for suffix, values, _ in samples]
        kept = self._kept.get(family.name)
        if kept is None or kept.keys != keys:
            text = self._written(family, samples)
            lines = text.splitlines(keepends=True)
            self._kept[family.name] = _Kept(keys, "".join(lines[:2]), [line[:line.rindex(" ") + 1] for line in lines[2:]])
            return text
        return kept.preamble + "".join(
            [f"{begin}{_text(number)}\n" for begin, (_, _, number) in zip(kept.beginnings, samples, strict=True)])

    def _written(self, family: Family, samples: Sequence[Sample]) -> str:
        name = PREFIX + family.name
        # The library's name of a counter lacks the ending that its samples have.
        metric = Metric(name.removesuffix("_total"), family.help, family.kind)
        for suffix, values, number in samples:
            labels = (*family.labels, "le") if suffix == "_bucket" else family.labels
            metric.add_sample(name + suffix, dict(zip(labels, values, strict=True)), number)
        if self._is_open:
            text: bytes = openmetrics.generate_latest(_Only(metric))  # type: ignore[no-untyped-call]
            return text.decode().removesuffix(_END)
        return generate_latest(_Only(metric)).decode()


class _Kept(NamedTuple):
    """What stays the same from one scrape to the next."""

    keys: list[tuple[str, tuple[str, ...]]]  # of the samples
    preamble: str  # two lines, HELP and TYPE
    beginnings: list[str]  # of the samples' lines


class _Only(Collector):
    """One metric in the place of a registry."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def _text(number: float) -> str:
    return floatToGoString(number)  # type: ignore[no-untyped-call, no-any-return]


_PLAIN, _OPEN = _Text(False), _Text(True)


def exposition(segment: Segment, accept: str, sessions: Mapping[tuple[str, str], int]) -> tuple[str, bytes]:
    """The content type and the text of all metrics; `accept` is the scraper's Accept. `sessions`: see `view`."""
    if _OPENMETRICS in accept:
        return openmetrics.CONTENT_TYPE_LATEST, _OPEN.write(segment, sessions)
    return CONTENT_TYPE_PLAIN_0_0_4, _PLAIN.write(segment, sessions)
