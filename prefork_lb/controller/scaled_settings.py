"""From `[pools.NAME.scaling]` to what rule and fleet take."""
from __future__ import annotations

from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.scaling.fleet import FleetSettings
from prefork_lb.scaling.rule import RuleSettings
from prefork_lb.scaling.timetable import parse_time, time_in_force


def rule_settings(scaling: ScalingConfig) -> RuleSettings:
    """For the rule."""
    return RuleSettings(scaling.max, scaling.target, scaling.stable_window, scaling.panic_window, scaling.max_up,
                        scaling.max_down, scaling.down_delay, scaling.idle, scaling.cpu / 100, scaling.queue_time)


def fleet_settings(pool: PoolConfig, scaling: ScalingConfig) -> FleetSettings:
    """For the life of servers."""
    return FleetSettings(scaling.start_timeout, scaling.drain_timeout, scaling.stop_timeout, pool.slow_start,
                         scaling.max_memory << 20, scaling.max_requests, scaling.max_age, scaling.replace_after)


def least_servers(scaling: ScalingConfig, wall: float) -> int:
    """The smallest number of servers at this time, in seconds of the epoch."""
    number = time_in_force([parse_time(schedule.at) for schedule in scaling.schedules], wall)
    return scaling.min if number is None else scaling.schedules[number].min
