"""Which other balancers there are: those whose reports are new again and again."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prefork_lb.clock import Clock
from prefork_lb.cluster.report import Report

SILENT_S = 1.0
"""A balancer whose report has not changed for so long goes on by itself, and the others without it."""
GONE_S = 30.0
"""After so long its report is removed, and its parts of limits are free."""


@dataclass(slots=True)
class _Known:
    report: Report
    heard: float  # when its report last changed
    since: float  # since when it has been there without a pause
    is_there: bool = False  # it has changed at least once: else it may be what a balancer left that ended long ago


class Others:
    """As one balancer hears of them. All instants are of this host's monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def hear(self, reports: Iterable[Report]) -> None:
        """The store has these reports of others now, and no others."""
        now, found = self._clock(), {}
        for report in reports:
            known = self._known.get(report.balancer)
            if known is None:
                known = _Known(report, now, now)
            elif (report.run, report.number) != (known.report.run, known.report.number):
                if not known.is_there or now - known.heard > SILENT_S:
                    known.since = now
                known.report, known.heard, known.is_there = report, now, True
            found[report.balancer] = known
        self._known = found

    def present(self) -> list[Report]:
        """The newest report of each that is there, by name."""
        now = self._clock()
        return [known.report for _, known in sorted(self._known.items()) if known.is_there and now - known.heard <= SILENT_S]

    def heard(self, name: str) -> tuple[float, float]:
        """When the newest report of a balancer came that is known, and when it joined."""
        known = self._known[name]
        return known.heard, known.since

    def gone(self) -> list[str]:
        """Those whose reports are to be removed."""
        now = self._clock()
        return [name for name, known in self._known.items() if now - known.heard > GONE_S]
