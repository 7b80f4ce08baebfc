"""The driver that a pool's configuration names. It alone is imported: the others would take memory of the controller."""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from prefork_lb.config.model import Config
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.scaling.driver import Driver
from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment


class ConfiguredDriver(NamedTuple):
    """A driver, and the function that lets it take another configuration over."""

    driver: Driver
    use: Callable[[ScalingConfig], None]


def make_driver(segment: Segment, error_log: str, pool: str, scaling: ScalingConfig, config: Config) -> ConfiguredDriver:
    """The driver for the servers of this pool. `error_log` is where the output of processes goes that have no `log` of their own:
    a file; empty: to stdout."""
    if scaling.driver == "systemd":
        return _units(scaling)
    if scaling.driver == "command":
        return _hooks(pool, scaling, config)
    return _processes(segment, error_log, pool, scaling)


def _units(scaling: ScalingConfig) -> ConfiguredDriver:
    from prefork_lb.scaling.addresses import Addresses
    from prefork_lb.scaling.drivers.systemd import SystemdDriver, UnitSettings

    def settings(scaling: ScalingConfig) -> UnitSettings:
        return UnitSettings(scaling.unit, Addresses.parse(scaling.addresses), scaling.start_timeout, scaling.stop_timeout)

    driver = SystemdDriver(settings(scaling))
    return ConfiguredDriver(driver, lambda scaling: driver.use(settings(scaling)))


def _hooks(pool: str, scaling: ScalingConfig, config: Config) -> ConfiguredDriver:
    from prefork_lb.scaling.drivers.command import CommandDriver, CommandSettings, servers_folder

    def settings(scaling: ScalingConfig) -> CommandSettings:
        return CommandSettings(scaling.up, scaling.down)

    folder = servers_folder(config.state.file, os.path.abspath(config.source), pool)
    driver = CommandDriver(pool, folder, settings(scaling))
    return ConfiguredDriver(driver, lambda scaling: driver.use(settings(scaling)))


def _processes(segment: Segment, error_log: str, pool: str, scaling: ScalingConfig) -> ConfiguredDriver:
    from prefork_lb.scaling.addresses import AUTO, Addresses
    from prefork_lb.scaling.drivers.process import InstanceSegment, ProcessDriver, ProcessSettings

    def settings(scaling: ScalingConfig) -> ProcessSettings:
        return ProcessSettings(
            scaling.command, Addresses.parse(scaling.addresses or AUTO), scaling.user, scaling.group, scaling.directory,
            scaling.environment, int(scaling.umask, 8) if scaling.umask else None, scaling.limits, scaling.log or error_log,
            scaling.stop_timeout)

    instance = InstanceSegment(segment.name, segment.descriptor, (at.H_MASTERS * at.CELL, at.MASTERS))
    driver = ProcessDriver(instance, pool, settings(scaling))
    return ConfiguredDriver(driver, lambda scaling: driver.use(settings(scaling)))
