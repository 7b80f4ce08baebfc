"""Checks of servers that are starting: they are in no pool yet, and wait for the first check that passes."""
from __future__ import annotations

from collections.abc import Collection, Hashable

from prefork_lb.config.added import added_server
from prefork_lb.config.model import Config
from prefork_lb.controller.check_targets import probe_for
from prefork_lb.controller.probe import CheckOutcome, Prober
from prefork_lb.controller.schedule import CheckRules, CheckSchedule, Target
from prefork_lb.controller.streak import CheckState

_EVERY_S = 0.25


class StartChecks:
    """See `scaling.fleet_pool.Readiness`. The checks are those of the pool; where it has none, a connection is enough."""

    def __init__(self, pool: str, config: Config) -> None:
        self._pool = pool
        self._config = config
        self._checks = CheckSchedule(Prober(), self._report)
        self._watched: frozenset[str] = frozenset()
        # Written by the threads that check. The schedule reports nothing of a server that is watched no more.
        self._outcomes: dict[Hashable, CheckOutcome] = {}

    def use(self, config: Config) -> None:
        """Check as this configuration says, from the next server on."""
        self._config = config

    def watch(self, addresses: Collection[str]) -> None:
        watched = frozenset(addresses)
        if watched != self._watched:
            # A server that stays goes on with its checks, unless the configuration has changed its target: then it begins anew.
            self._checks.set_targets([self._target(address) for address in sorted(watched)])
            for address in self._watched - watched:
                self._outcomes.pop(address, None)
            self._watched = watched
        self._checks.tick()

    def is_ready(self, address: str) -> bool:
        outcome = self._outcomes.get(address)
        return outcome is not None and bool(outcome.passed)

    def why_not(self, address: str) -> str:
        outcome = self._outcomes.get(address)
        return outcome.reason if outcome else "no check has ended yet"

    def close(self) -> None:
        """End the checks."""
        self._checks.close()

    def _target(self, address: str) -> Target:
        pool = self._config.pools[self._pool]
        probe = probe_for(added_server(pool, address), pool, self._config.proxy.limits.head)
        return Target(address, probe, CheckRules(_EVERY_S, _EVERY_S, rise=1, fall=1, start=CheckState.CHECKING.value))

    def _report(self, address: Hashable, state: CheckState, outcome: CheckOutcome) -> None:
        self._outcomes[address] = outcome
