"""What cannot work in `[metrics]`."""
from __future__ import annotations

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.metrics import MetricsConfig


def check_metrics(metrics: MetricsConfig, report: ReportProblem) -> None:
    """Report what cannot work in the section."""
    if metrics.statsd:
        try:
            _ = metrics.address
        except ValueError as exc:
            report(("metrics", "statsd"), str(exc))
