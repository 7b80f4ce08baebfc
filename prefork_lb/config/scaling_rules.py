"""What cannot work in `[pools.NAME.scaling]`."""
from __future__ import annotations

import grp
import pwd
import resource
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath

import msgspec

from prefork_lb.config.decode import ReportProblem, did_you_mean
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.positions import Path
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.errors import shown
from prefork_lb.scaling.addresses import AUTO, Addresses
from prefork_lb.scaling.timetable import parse_time

# The keys that belong to some drivers only. Those that are not here belong to all.
_KEYS = {
    "process": ("addresses", "command", "directory", "environment", "user", "group", "umask", "limits", "log", "max_memory",
                "cpu"),
    "systemd": ("addresses", "unit", "max_memory", "cpu"),
    "command": ("up", "down"),
}
_OF_SOME = sorted({key for keys in _KEYS.values() for key in keys})
_NEEDED = {"process": ("command",), "systemd": ("unit", "addresses"), "command": ("up", "down")}
_DEFAULTS = {field.name: None if field.default is msgspec.NODEFAULT else field.default
             for field in msgspec.structs.fields(ScalingConfig)}
_LIMITS = sorted(name.removeprefix("RLIMIT_").lower() for name in vars(resource) if name.startswith("RLIMIT_"))


def check_scaling(pools: Mapping[str, PoolConfig], report: ReportProblem) -> None:
    """Report what cannot work in the scaling of the pools."""
    taken: list[tuple[str, Addresses]] = []
    for name, pool in pools.items():
        scaling = getattr(pool, "scaling", None)  # the pool itself may have been refused
        if scaling is None:
            continue
        path = ("pools", name, "scaling")
        if pool.mode == "redirect":
            report(path, 'has no meaning with mode = "redirect": nobody knows the public addresses of servers that come and go')
        _counts(scaling, path, report)
        if pool.queue is None and _may_be_none(scaling):
            report((*path, "min"), f"0 needs a queue in which the first request waits for a server; add [pools.{name}.queue]")
        _schedules(scaling, path, report)
        if scaling.driver is None:
            continue
        if _cannot_be_passed_on(scaling, path, report):
            continue
        _keys_of_driver(scaling, path, report)
        if scaling.driver == "process":
            _process(scaling, path, report)
        if scaling.driver == "systemd":
            _unit(scaling, path, report)
        addresses = _addresses(scaling, path, report)
        if addresses is not None:
            other = next((other for other, theirs in taken if _meet(addresses, theirs)), None)
            if other is not None:
                report((*path, "addresses"), f"{shown(scaling.addresses)} are addresses of the pool {other!r}, too")
            taken.append((name, addresses))


def _counts(scaling: ScalingConfig, path: Path, report: ReportProblem) -> None:
    least, most, short, long = scaling.min, scaling.max, scaling.panic_window, scaling.stable_window
    if None not in (least, most) and least > most:
        report((*path, "min"), f"{least} is more than max, which is {most}")
    if None not in (short, long) and short > long:
        report((*path, "panic_window"), f"{short:g} is longer than stable_window, which is {long:g}")
    if scaling.idle not in (None, _DEFAULTS["idle"]) and not _may_be_none(scaling):
        report((*path, "idle"), "has no meaning where the last server never ends; expected min = 0 with it")


def _may_be_none(scaling: ScalingConfig) -> bool:
    return 0 in (scaling.min, *(each.min for each in scaling.schedules or () if each is not None))


def _schedules(scaling: ScalingConfig, path: Path, report: ReportProblem) -> None:
    if len(scaling.schedules or ()) == 1:
        report((*path, "schedules"), "a single time always holds; add the one at which it ends")
    for index, schedule in enumerate(scaling.schedules or ()):
        if schedule is None:
            continue  # type: ignore[unreachable]
        place = (*path, "schedules", index)
        if schedule.at is not None:
            try:
                parse_time(schedule.at)
            except ValueError as exc:
                report((*place, "at"), str(exc))
        if None not in (schedule.min, scaling.max) and schedule.min > scaling.max:
            report((*place, "min"), f"{schedule.min} is more than max, which is {scaling.max}")


def _keys_of_driver(scaling: ScalingConfig, path: Path, report: ReportProblem) -> None:
    own = _KEYS[scaling.driver]
    for key in _OF_SOME:
        value = getattr(scaling, key)
        if key not in own and value is not None and value != (_DEFAULTS[key] or type(value)()):
            drivers = " or ".join(f'"{driver}"' for driver, keys in _KEYS.items() if key in keys)
            report((*path, key), f'has no meaning with driver = "{scaling.driver}"; it belongs to {drivers}')
    for key in _NEEDED[scaling.driver]:
        if getattr(scaling, key) in ("", ()):
            report((*path, key), f'missing; driver = "{scaling.driver}" needs it')


def _cannot_be_passed_on(scaling: ScalingConfig, path: Path, report: ReportProblem) -> bool:
    """Report what no program can be given; whether there was something: the kernel's strings end with a zero byte, and the name
    of a variable with "="."""
    words: list[tuple[Path, str]] = []
    for key in _OF_SOME:
        value = getattr(scaling, key)
        if isinstance(value, str):
            words.append(((*path, key), value))
        elif isinstance(value, tuple):
            words += [((*path, key, index), word) for index, word in enumerate(value) if word is not None]
    environment = scaling.environment or {}
    words += [((*path, "environment", name), name + value) for name, value in environment.items() if value is not None]
    found = [place for place, word in words if "\0" in word]
    for place in found:
        report(place, "has a zero byte, which no program can be given")
    odd = [name for name in environment if not name or "=" in name]
    for name in odd:
        report((*path, "environment", name), f"{shown(name)} is no name of a variable")
    return bool(found or odd)


def _process(scaling: ScalingConfig, path: Path, report: ReportProblem) -> None:
    command = [part or "" for part in scaling.command or ()]
    if command and not any("{address}" in part or "{port}" in part for part in command):
        report((*path, "command"), "has neither {address} nor {port}: all servers would listen at the same address")
    if any("{port}" in part for part in command) and (scaling.addresses or "").startswith("unix:"):
        report((*path, "command"), "{port} has no meaning with unix sockets; expected {address}")
    if scaling.user:
        _known(pwd.getpwnam, scaling.user, "user", (*path, "user"), report)
    if scaling.group:
        _known(grp.getgrnam, scaling.group, "group", (*path, "group"), report)
    if scaling.directory and not FilePath(scaling.directory).is_dir():
        report((*path, "directory"), f"{shown(scaling.directory)} is no directory")
    for name in scaling.limits or {}:
        if name not in _LIMITS:
            report((*path, "limits", name), f"there is no such limit; expected one of {', '.join(_LIMITS)}"
                   f"{did_you_mean(name, _LIMITS)}")


def _unit(scaling: ScalingConfig, path: Path, report: ReportProblem) -> None:
    unit = scaling.unit
    if unit and not ("@{n}." in unit or "@{port}." in unit):
        report((*path, "unit"), f'{shown(unit)} is the same unit for all servers; expected one like "app@{{n}}.service"')
    if unit and "{port}" in unit and (scaling.addresses or "").startswith("unix:"):
        report((*path, "unit"), "{port} has no meaning with unix sockets; expected {n}")
    if scaling.addresses == AUTO:
        report((*path, "addresses"), '"auto" is for driver = "process"; a unit has the address of its number')


def _addresses(scaling: ScalingConfig, path: Path, report: ReportProblem) -> Addresses | None:
    if scaling.addresses in (None, "", AUTO) or scaling.driver == "command":
        return None
    try:
        addresses = Addresses.parse(scaling.addresses)
    except ValueError as exc:
        report((*path, "addresses"), str(exc))
        return None
    if scaling.max is not None and 0 < addresses.count < 2 * scaling.max:
        report((*path, "addresses"), f"{shown(scaling.addresses)} are {addresses.count}; expected at least {2 * scaling.max}, "
               "twice max: new servers run beside the old ones while these are replaced")
    return addresses


def _meet(one: Addresses, other: Addresses) -> bool:
    """Whether both have an address in common."""
    if one.pattern or other.pattern:
        return one.pattern == other.pattern
    return one.host == other.host and one.first <= other.last and other.first <= one.last


def _known(find: Callable[[str], object], name: str, what: str, path: Path, report: ReportProblem) -> None:
    try:
        find(name)
    except (KeyError, ValueError):
        report(path, f"there is no {what} {shown(name)}")

