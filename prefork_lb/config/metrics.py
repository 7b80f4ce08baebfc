"""The section `[metrics]`: where metrics are sent to."""
from __future__ import annotations

from typing import Annotated

from prefork_lb.config.section import Seconds, Section, meta
from prefork_lb.errors import shown
from prefork_lb.net.address import Address, parse_address

_SCHEME = "udp://"


class MetricsConfig(Section, frozen=True):
    """Metrics that are sent to StatsD, by the controller; see [metrics.md](metrics.md#statsd). Prometheus fetches them from
    `[admin]`. Statistics need one of the two at the start."""

    statsd: Annotated[str, meta('Where to: "udp://127.0.0.1:8125". None: nowhere.')] = ""
    interval: Annotated[Seconds, meta("Seconds from one time to the next.")] = 10.0
    prefix: Annotated[str, meta("The first part of all names.", pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")] = "prefork_lb"

    @property
    def address(self) -> Address:
        """Of `statsd`, which must not be empty. Raises ValueError."""
        rest = self.statsd.removeprefix(_SCHEME)
        if rest == self.statsd or "/" in rest:
            raise ValueError(f'{shown(self.statsd)} is no address of StatsD; expected "udp://HOST:PORT"')
        return parse_address(rest)
