"""From `[pools.NAME.scaling]` to what the parts of scaling take."""
from __future__ import annotations

from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.scaling.addresses import AUTO, Addresses
from prefork_lb.scaling.drivers.command import CommandSettings
from prefork_lb.scaling.drivers.process import ProcessSettings
from prefork_lb.scaling.drivers.systemd import UnitSettings
from prefork_lb.scaling.fleet import FleetSettings
from prefork_lb.scaling.rule import RuleSettings
from prefork_lb.scaling.timetable import in_force, parse_time


def rule_settings(scaling: ScalingConfig) -> RuleSettings:
    """For the rule."""
    return RuleSettings(scaling.max, scaling.target, scaling.stable_window, scaling.panic_window, scaling.max_up,
                        scaling.max_down, scaling.down_delay, scaling.idle, scaling.cpu / 100, scaling.queue_time)


def fleet_settings(pool: PoolConfig, scaling: ScalingConfig) -> FleetSettings:
    """For the life of servers."""
    return FleetSettings(scaling.start_timeout, scaling.drain_timeout, scaling.stop_timeout, pool.slow_start,
                         scaling.max_memory << 20, scaling.max_requests, scaling.max_age, scaling.replace_after)


def process_settings(scaling: ScalingConfig, error_log: str) -> ProcessSettings:
    """For servers that are processes. `error_log`: where their output goes without a `log` of their own; empty: to stdout."""
    return ProcessSettings(
        scaling.command, Addresses.parse(scaling.addresses or AUTO), scaling.user, scaling.group, scaling.directory,
        scaling.environment, int(scaling.umask, 8) if scaling.umask else None, scaling.limits, scaling.log or error_log,
        scaling.stop_timeout)


def unit_settings(scaling: ScalingConfig) -> UnitSettings:
    """For servers that are units of systemd."""
    return UnitSettings(scaling.unit, Addresses.parse(scaling.addresses), scaling.start_timeout, scaling.stop_timeout)


def command_settings(scaling: ScalingConfig) -> CommandSettings:
    """For servers that programs start and end."""
    return CommandSettings(scaling.up, scaling.down)


def least_servers(scaling: ScalingConfig, wall: float) -> int:
    """The smallest number of servers at this time, in seconds of the epoch."""
    number = in_force([parse_time(schedule.at) for schedule in scaling.schedules], wall)
    return scaling.min if number is None else scaling.schedules[number].min
