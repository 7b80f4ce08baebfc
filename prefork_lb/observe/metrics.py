"""The numbers of an instance for Prometheus: text, and OpenMetrics for those who ask for it.

`metric_table` has all of them; docs/metrics.md shows them as a table. Numbers are read from shared memory at each scrape, over
all workers, so it does not matter which process answers.

The library writes the text. It takes 8 microseconds for a line, and 500 servers are 12,000 lines. So what it wrote is kept: of
each line the part before the number. At the next scrape only numbers are written, and the lines of servers that have come.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
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

    def write(self, segment: Segment, sessions: Mapping[tuple[str, str], int],
              split_weights: Mapping[tuple[str, str], int]) -> bytes:
        """All metrics of this moment."""
        seen = view(segment, sessions, split_weights)
        parts = [self._family(family, list(family.samples(seen))) for family in FAMILIES]
        return "".join((*parts, _END) if self._is_open else parts).encode()

    def _family(self, family: Family, samples: list[Sample]) -> str:
        kept = self._kept.get(family.name)
        if kept is None or len(kept.beginnings) > 2 * len(samples):  # most of it is of servers that have left
            kept = self._kept[family.name] = _Kept(self._written(family, []), {})
        beginnings = kept.beginnings
        if news := [sample for sample in samples if sample[:2] not in beginnings]:
            lines = self._written(family, news).removeprefix(kept.preamble).removesuffix("\n").split("\n")
            beginnings.update((sample[:2], line[:line.rindex(" ") + 1]) for sample, line in zip(news, lines, strict=True))
        return kept.preamble + "".join(
            [f"{beginnings[suffix, values]}{_text(number)}\n" for suffix, values, number in samples])

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

    preamble: str  # two lines, HELP and TYPE
    beginnings: dict[tuple[str, tuple[str, ...]], str]  # of the samples' lines, by the end of the name and the labels


class _Only(Collector):
    """One metric in the place of a registry."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def _text(number: float) -> str:
    return floatToGoString(number)  # type: ignore[no-untyped-call, no-any-return]


_PLAIN, _OPEN = _Text(False), _Text(True)


def exposition(segment: Segment, accept: str, sessions: Mapping[tuple[str, str], int],
               split_weights: Mapping[tuple[str, str], int] = MappingProxyType({})) -> tuple[str, bytes]:
    """The content type and the text of all metrics; `accept` is the scraper's Accept. `sessions`, `split_weights`: see `view`."""
    if _OPENMETRICS in accept:
        return openmetrics.CONTENT_TYPE_LATEST, _OPEN.write(segment, sessions, split_weights)
    return CONTENT_TYPE_PLAIN_0_0_4, _PLAIN.write(segment, sessions, split_weights)


def prepare(segment: Segment) -> None:
    """Write all metrics once in each format, so that no scraper waits for what the first time takes."""
    for text in (_PLAIN, _OPEN):
        text.write(segment, {}, {})
