"""A pool whose servers the balancer starts itself. The rule gets its load; the fleet gets the number of servers it needs."""
from __future__ import annotations

import logging
import time

from prefork_lb.clock import Clock, monotonic
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.controller.scaled_load import ScaledLoad
from prefork_lb.controller.scaled_settings import fleet_settings, least_servers, rule_settings
from prefork_lb.scaling.autoscaler import Autoscaler
from prefork_lb.scaling.driver import Driver
from prefork_lb.scaling.fleet import Fleet
from prefork_lb.scaling.fleet_pool import FleetPool, Readiness
from prefork_lb.scaling.rolling import RollRequest
from prefork_lb.scaling.rule import Wish
from prefork_lb.scaling.scaled_server import ScaledState
from prefork_lb.shared.events import EventKind
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.scaling_state import (
    Mode,
    Scaling,
    asked_roll,
    asked_servers,
    end_roll,
    forget_scaling,
    scaling_of,
    write_scaling,
)
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table_lookup import pool_number

_DECIDE_S = 1.0

log = logging.getLogger("prefork_lb")


class PoolScaler:
    """`look` is to be called a few times a second."""

    def __init__(self, segment: Segment, ledger: Ledger, name: str, pool: PoolConfig, scaling: ScalingConfig, driver: Driver,
                 fleet_pool: FleetPool, readiness: Readiness, clock: Clock = monotonic, wall: Clock = time.time) -> None:
        self._segment, self._ledger, self._name = segment, ledger, name
        self._driver, self._fleet_pool = driver, fleet_pool
        self._clock, self._wall = clock, wall
        self._scaling = scaling
        self._load = ScaledLoad(segment, ledger, name)
        self._fleet = Fleet(name, fleet_settings(pool, scaling), driver, fleet_pool, readiness, clock)
        number = pool_number(segment, name)
        before = scaling_of(segment, number) if number is not None else None
        # A controller that follows another one goes on with what that one wanted.
        self._wish = Wish(before.wanted, before.why) if before is not None else Wish(0, "")
        self._autoscaler = Autoscaler(rule_settings(scaling), clock(), self._wish.servers)
        self._decide_at = clock()
        self._is_retired = False
        self._written: Scaling | None = None

    def use(self, pool: PoolConfig, scaling: ScalingConfig) -> None:
        """Go by these settings from now on; servers that run stay as they are."""
        self._scaling, self._is_retired = scaling, False
        self._autoscaler.use(rule_settings(scaling))
        self._fleet.use(fleet_settings(pool, scaling))
        self._decide_at = self._clock()

    def retire(self) -> None:
        """Let all servers end: the configuration does not scale the pool any more."""
        self._is_retired = True

    @property
    def is_over(self) -> bool:
        """Whether it is retired and has no server left."""
        return self._is_retired and self._fleet.is_empty

    @property
    def stops_within_s(self) -> float:
        """The longest `stop_timeout` of its servers; at least that in force."""
        return max([self._scaling.stop_timeout, *(member.stop_timeout_s for member in self._fleet.servers)])

    def look(self) -> None:
        """Have as many servers run as the pool needs now."""
        number = pool_number(self._segment, self._name)
        if self._is_retired:
            self._fleet.tick(0)
            if self.is_over and number is not None:
                with self._ledger.locked():
                    forget_scaling(self._segment, number)
            return
        if number is None:
            return  # no worker has entered the pool yet
        now = self._clock()
        load = self._load.read(number, now, self._cpu_s)
        self._autoscaler.note(now, load)
        if now >= self._decide_at or load.in_flight and not self._wish.servers:
            self._decide_at = now + _DECIDE_S
            self._decide(now, number)
        asked = asked_roll(self._segment, number)
        self._fleet.tick(self._wish.servers, RollRequest(asked.before_ms / 1000, asked.surge) if asked is not None else None)
        self._publish(number)

    def _cpu_s(self) -> dict[int, float]:
        if not self._scaling.cpu:
            return {}
        found = {member.n: self._driver.cpu_s(member.n) for member in self._fleet.servers if member.state is ScaledState.SERVING}
        return {n: seconds for n, seconds in found.items() if seconds is not None}

    def _decide(self, now: float, number: int) -> None:
        """Decide how many servers there should be, and tell what is new."""
        asked, before = asked_servers(self._segment, number), self._wish.servers
        # The rule is asked even if an operator has set the number: it remembers each moment.
        wish = self._autoscaler.wish(now, self._fleet.count(ScaledState.SERVING), least_servers(self._scaling, self._wall()))
        self._wish = Wish(min(asked, self._scaling.max), "an operator has set it") if asked is not None else wish
        if self._wish.servers != before:
            log.info("pool %s: %d servers wanted, before: %d: %s", self._name, self._wish.servers, before, self._wish.why)
            self._fleet_pool.tell(EventKind.SCALED, "", f"{before} -> {self._wish.servers}: {self._wish.why}")

    def _publish(self, number: int) -> None:
        """Write how the pool scales for operators to see, when it has changed."""
        count, fleet = self._fleet.count, self._fleet
        mode = Mode.FIXED if asked_servers(self._segment, number) is not None else Mode.AUTO
        why = f"{self._wish.why}; no server is started for a while, too many have failed" if fleet.is_given_up else self._wish.why
        scaling = Scaling(mode, self._scaling.max, self._wish.servers, count(ScaledState.SERVING), count(ScaledState.STARTING),
                          count(ScaledState.DRAINING, ScaledState.PARKED, ScaledState.STOPPING), why)
        outcome = fleet.roll_outcome
        if outcome is None and scaling == self._written:
            return
        if outcome is not None:
            # Before the roll ends in shared memory: a command that sees the end then finds the event.
            self._fleet_pool.tell(EventKind.ROLLED, "", outcome.text)
        with self._ledger.locked():
            write_scaling(self._segment, number, scaling)
            if outcome is not None:
                end_roll(self._segment, number)
        self._written = scaling
