"""The driver that a pool's configuration names."""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from prefork_lb.config.model import Config
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.controller.scaled_settings import command_settings, process_settings, unit_settings
from prefork_lb.scaling.driver import Driver
from prefork_lb.scaling.drivers.command import CommandDriver, servers_folder
from prefork_lb.scaling.drivers.process import Instance, ProcessDriver
from prefork_lb.scaling.drivers.systemd import SystemdDriver
from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment


class ConfiguredDriver(NamedTuple):
    """A driver, and the function that lets it take another configuration over."""

    driver: Driver
    use: Callable[[ScalingConfig], None]


def make_driver(segment: Segment, error_log: str, pool: str, scaling: ScalingConfig, config: Config) -> ConfiguredDriver:
    """The driver for the servers of this pool. `error_log` is a file, or empty."""
    if scaling.driver == "systemd":
        units = SystemdDriver(unit_settings(scaling))
        return ConfiguredDriver(units, lambda scaling: units.use(unit_settings(scaling)))
    if scaling.driver == "command":
        folder = servers_folder(config.state.file, os.path.abspath(config.source), pool)
        hooks = CommandDriver(pool, folder, command_settings(scaling))
        return ConfiguredDriver(hooks, lambda scaling: hooks.use(command_settings(scaling)))
    instance = Instance(segment.name, segment.descriptor, (at.H_MASTERS * at.CELL, at.MASTERS))
    processes = ProcessDriver(instance, pool, process_settings(scaling, error_log))
    return ConfiguredDriver(processes, lambda scaling: processes.use(process_settings(scaling, error_log)))
