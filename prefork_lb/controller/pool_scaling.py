"""The parts of a pool that scales, put together. Only a controller with such a pool imports them."""
from __future__ import annotations

from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.controller.pool_scaler import PoolScaler
from prefork_lb.controller.scaled_drivers import ConfiguredDriver
from prefork_lb.controller.scaled_pool import ScaledPool
from prefork_lb.controller.start_checks import StartChecks
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States


class PoolScaling:
    """A pool's scaler, driver and checks of servers that start."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, name: str, config: Config, scaling: ScalingConfig,
                 driver: ConfiguredDriver) -> None:
        """`scaling` need not be the pool's section of `config`, which may lack the pool."""
        self.driver_kind, self.driver, self.checks = scaling.driver, driver, StartChecks(name, config)
        self._name = name
        self._pool = ScaledPool(segment, ledger, states, name, scaling.max_connections)
        self.scaler = PoolScaler(segment, ledger, name, config.pools.get(name, PoolConfig()), scaling, driver.driver, self._pool,
                                 self.checks)

    def use(self, config: Config, scaling: ScalingConfig) -> None:
        """Go by another configuration."""
        self._pool.max_connections = scaling.max_connections
        self.checks.use(config)
        self.driver.use(scaling)
        self.scaler.use(config.pools[self._name], scaling)
