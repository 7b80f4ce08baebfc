"""Which pools scale, by the configuration in force."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from prefork_lb.config.model import Config
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.controller.duties import Duties, do_at_the_end
from prefork_lb.controller.scaled_drivers import ConfiguredDriver, make_driver
from prefork_lb.scaling.driver import Driver
from prefork_lb.scaling.keepers import keepers
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.scaling_state import scaling_of
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.table_lookup import pool_number

if TYPE_CHECKING:
    from prefork_lb.controller.pool_scaling import PoolScaling

MakeDriver = Callable[[str, ScalingConfig, Config], ConfiguredDriver]
"""For a pool of this name."""

_STOP_SPARE_S = 2.0  # beyond `stop_timeout`, by which keepers kill their servers

_ABANDONED = ScalingConfig(max=1, target=1.0)  # of a pool that does not scale any more: its section is not known


class ScalingDuty:
    """`look` is to be called a few times a second. A pool that fails stops no other."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, beat: Callable[[], object], error_log: str = "",
                 make: MakeDriver | None = None) -> None:
        """`beat` gives a sign of life: a pool may take some seconds (see `scaling.driver.Driver`), and there may be many."""
        self._segment, self._ledger, self._states, self._beat = segment, ledger, states, beat
        self._make: MakeDriver = make or partial(make_driver, segment, error_log)
        self._config: Config | None = None
        self._is_matched = True  # each pool that is to scale has its scaler
        self._pools: dict[str, PoolScaling] = {}
        self._duties = Duties({})
        self._closing: list[Driver] = []
        self.closes_within_s = 0.0  # the longest time for that, once `close` was called

    def use(self, config: Config) -> None:
        """Scale the pools as this configuration says, from the next look on."""
        if self._config is None:
            self._take_over_abandoned(config)
        self._config = config
        self._match_scalers(config)

    def look(self) -> None:
        """Have as many servers run as each pool needs now."""
        self._duties.look()
        over = [name for name, pool in self._pools.items() if pool.scaler.is_over]
        for name in over:
            self._pools.pop(name).checks.close()
            self._is_matched = False
        if not self._is_matched and self._config is not None:
            self._match_scalers(self._config)

    def close(self, has_ended: bool) -> None:
        """End the checks of servers that start. `has_ended`: the instance has ended, so all servers that it started end, too:
        see `is_closed`."""
        do_at_the_end({f"end the checks of new servers of the pool {name}": pool.checks.close
                       for name, pool in self._pools.items()}, self._beat)
        if has_ended:
            self._closing = [pool.driver.driver for pool in self._pools.values()]
            self.closes_within_s = max((pool.scaler.stops_within_s + _STOP_SPARE_S for pool in self._pools.values()), default=0.0)
            do_at_the_end({f"end the servers of the pool {name}": pool.driver.driver.close
                           for name, pool in self._pools.items()}, self._beat)

    @property
    def is_closed(self) -> bool:
        """Whether all servers have ended that were to end, after `close`."""
        return all(driver.is_closed for driver in self._closing)

    def _take_over_abandoned(self, config: Config) -> None:
        """Have a scaler for each pool that has ceased to scale, or to start processes, since there was last a controller."""
        scaled = _scaled(config)
        processes = {name for name, scaling in scaled.items() if scaling.driver == "process"}
        abandoned = {found.pool for found in keepers(self._segment.name)} - processes
        # The units and hooks of before are not known: such servers leave the pool and are not ended.
        abandoned.update(name for name in config.pools.keys() - scaled.keys() if self._has_scaled(name))
        for name in abandoned:
            self._pools[name] = self._new_pool(name, config, _ABANDONED)

    def _has_scaled(self, pool: str) -> bool:
        number = pool_number(self._segment, pool)
        return number is not None and scaling_of(self._segment, number) is not None

    def _match_scalers(self, config: Config) -> None:
        """Have a scaler for each pool that scales. The scalers of other pools end their servers.

        Raises, when all others are made, the error of the one that cannot be, or an ExceptionGroup of several. They are made
        again at the next look.
        """
        self._is_matched, scaled = False, _scaled(config)
        problems: list[Exception] = []
        for name, scaling in scaled.items():
            known = self._pools.get(name)
            if known is None:
                try:
                    self._pools[name] = self._new_pool(name, config, scaling)
                except Exception as exc:
                    exc.add_note(f"the pool {name}")
                    problems.append(exc)
            elif known.driver_kind == scaling.driver:
                known.use(config, scaling)
        for name, known in self._pools.items():
            # When the driver changes, the servers of the one before end first: both would have the same numbers.
            if name not in scaled or scaled[name].driver != known.driver_kind:
                known.scaler.retire()
        self._duties = Duties({f"scale the pool {name}": partial(self._scale, pool) for name, pool in self._pools.items()})
        if len(problems) > 1:
            raise ExceptionGroup("pools without a scaler", problems)
        if problems:
            raise problems[0]
        self._is_matched = True

    def _scale(self, pool: PoolScaling) -> None:
        self._beat()
        pool.scaler.look()

    def _new_pool(self, name: str, config: Config, scaling: ScalingConfig) -> PoolScaling:
        # Imported for a pool that scales: most instances have none, and it takes a megabyte of the controller.
        from prefork_lb.controller.pool_scaling import PoolScaling
        return PoolScaling(self._segment, self._ledger, self._states, name, config, scaling, self._make(name, scaling, config))


def _scaled(config: Config) -> dict[str, ScalingConfig]:
    return {name: pool.scaling for name, pool in config.pools.items() if pool.scaling is not None}
