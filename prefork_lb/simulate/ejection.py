"""Ejection in a simulation, by the rules of `upstream.ejection` for failures in a row: out, a trial, back or out for longer.

Failures by their share, and the tenth that is added to times by chance, are left out.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EjectionModel:
    """Of a pool; see config.pool.EjectionConfig. Times are seconds."""

    failures: int = 5  # in a row; 0: no ejection
    seconds: float = 10.0
    max_seconds: float = 300.0
    max_ejected: int = 50  # percent of the servers
    penalty_s: float = 1.0  # how long a failure counts as load of its server


class Ejectable(Protocol):
    """A server, as far as ejection needs it."""

    streak: int
    ejections: int  # in a row
    out_until: float  # seconds of virtual time; 0: it is not ejected
    trial: float  # when the trial that is under way was claimed; 0: none is


class SimulatedEjections:
    """Of one pool."""

    def __init__(self, model: EjectionModel, servers: Sequence[Ejectable]) -> None:
        self._model = model
        self._servers = servers
        self.out = 0  # servers that are ejected

    def due(self, now: float) -> Ejectable | None:
        """A server whose time is over and that no request tries yet."""
        return next((server for server in self._servers if 0 < server.out_until <= now and not server.trial), None)

    def judge(self, server: Ejectable, claimed: float, failed: bool, now: float) -> None:
        """A request that was claimed at `claimed` has ended now."""
        if server.out_until:
            if not server.trial or server.trial != claimed:
                return  # it was sent before the ejection
            server.trial = 0.0
            if failed:
                self._eject(server, now)
            else:
                server.out_until, server.streak = 0.0, 0
                self.out -= 1
        elif not failed:
            server.streak = 0
        else:
            server.streak += 1
            if self._model.failures and server.streak >= self._model.failures and self._may_eject():
                server.ejections = 0
                self.out += 1
                self._eject(server, now)

    def _may_eject(self) -> bool:
        count = len(self._servers)
        return self.out + 1 < count and (not self.out or 100 * (self.out + 1) <= self._model.max_ejected * count)

    def _eject(self, server: Ejectable, now: float) -> None:
        server.ejections += 1
        server.out_until = now + min(self._model.seconds * server.ejections, self._model.max_seconds)
