"""From the reports of other balancers to the load that is added to this one's own counts."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prefork_lb.cluster.leveling import Leveling
from prefork_lb.cluster.report import Key, Report, decode_keys
from prefork_lb.cluster.server_list import Counts, Servers

_AGAIN = 20  # reports after which a table is sent again: the store may have lost it


class Tables:
    """Which servers the numbers in a report stand for. Balancers of the same configuration have the same table."""

    def __init__(self) -> None:
        self._keys: dict[bytes, list[Key]] = {}
        self._told = b""

    def to_send(self, servers: Servers, number: int) -> dict[bytes, bytes]:
        """This balancer's own, with some of its reports."""
        self._keys[servers.digest] = servers.keys
        if servers.digest == self._told and number % _AGAIN:
            return {}
        self._told = servers.digest
        return {servers.digest: servers.table}

    def unknown(self, reports: Iterable[Report]) -> list[bytes]:
        """The digests of those that are to be asked for."""
        return [digest for digest in {report.table for report in reports} if digest not in self._keys]

    def take(self, tables: Mapping[bytes, bytes]) -> None:
        """The store has these."""
        for digest, data in tables.items():
            if (keys := decode_keys(data)) is not None:
                self._keys[digest] = keys

    def needs(self, report: Report) -> dict[Key, int]:
        """What another balancer needs of limits, by server."""
        return dict(zip(self._keys.get(report.table, ()), report.needs, strict=False))

    def in_flight(self, report: Report, servers: Servers) -> list[int]:
        """What it has in flight on this balancer's servers."""
        if report.table == servers.digest and len(report.in_flight) == len(servers.keys):
            return report.in_flight
        known = dict(zip(self._keys.get(report.table, ()), report.in_flight, strict=False))
        return [known.get(key, 0) for key in servers.keys]


class Levelings:
    """One `Leveling` a pool."""

    def __init__(self, counts: Counts, tables: Tables) -> None:
        self._counts = counts
        self._tables = tables
        self._digest = b""
        self._pools: dict[str, Leveling] = {}

    def of(self, servers: Servers, own: Sequence[int], present: Sequence[Report], place: int) -> dict[int, int]:
        """By slot. `own` are the requests in flight that this balancer has just reported; `place` is its place among all."""
        if servers.digest != self._digest:
            self._digest = servers.digest
            self._pools = {pool: Leveling(part.stop - part.start) for pool, part in servers.by_pool()}
        others = [0] * len(servers.keys)
        for report in present:
            others = [total + count for total, count in zip(others, self._tables.in_flight(report, servers), strict=True)]
        weights = self._counts.weights(servers.slots)
        found: dict[int, int] = {}
        for pool, part in servers.by_pool():
            loads = self._pools[pool].loads(own[part], others[part], weights[part], len(present) + 1, place)
            found.update(zip(servers.slots[part], loads, strict=True))
        return found if present else {}
