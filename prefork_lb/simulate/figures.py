"""What came of a run, in figures."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.simulate.simulation import Simulation

PERCENTS = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 96.0, 97.0, 98.0, 98.5, 99.0, 99.3,
            99.5, 99.7, 99.8, 99.9)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Times are seconds from a request's arrival at the balancer to its answer, of the requests that were answered
    well; they are 0 when none was."""

    requests: int
    mean_s: float
    p50_s: float
    p99_s: float
    spread: float  # time average of the most minus the fewest in flight, for each unit of weight
    most_in_flight: int  # on one server
    longest_queue: int  # requests that waited at one server at a time
    most_waiting: int  # requests that waited in the pool's queue at a time
    failed: int  # failed by a server
    refused: int  # no server had room
    shares: tuple[float, ...]  # of the requests, by server
    curve: tuple[float, ...]  # times at PERCENTS

    @property
    def errors(self) -> int:
        return self.failed + self.refused


def figures(simulation: Simulation, requests: int) -> Figures:
    """The figures of a simulation that has come to its end."""
    ordered = sorted(simulation.latencies)
    picks = [server.picks for server in simulation.servers]
    curve = tuple(percentile(ordered, percent) for percent in PERCENTS)
    return Figures(
        requests, math.fsum(ordered) / len(ordered) if ordered else 0.0, percentile(ordered, 50), percentile(ordered, 99),
        simulation.spread_s / simulation.counted_s if simulation.counted_s else 0.0, simulation.most_in_flight,
        simulation.longest_queue, simulation.most_waiting, simulation.failed, simulation.refused,
        tuple(count / max(1, sum(picks)) for count in picks), curve)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank); 0 when there are none."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1] if ordered else 0.0


def average(runs: Sequence[Figures]) -> Figures:
    """Of several runs: the mean of means and percentiles, the highest of peaks, the sum of counts."""
    count = len(runs)
    return Figures(
        sum(run.requests for run in runs), sum(run.mean_s for run in runs) / count, sum(run.p50_s for run in runs) / count,
        sum(run.p99_s for run in runs) / count, sum(run.spread for run in runs) / count,
        max(run.most_in_flight for run in runs), max(run.longest_queue for run in runs), max(run.most_waiting for run in runs),
        sum(run.failed for run in runs), sum(run.refused for run in runs),
        tuple(sum(shares) / count for shares in zip(*(run.shares for run in runs), strict=True)),
        tuple(sum(times) / count for times in zip(*(run.curve for run in runs), strict=True)))
