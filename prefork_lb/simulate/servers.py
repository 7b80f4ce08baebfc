"""The servers of a simulation: how much each works on at once, and when it is slow, fails or stands still."""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.errors import shown
from prefork_lb.simulate.service_times import parse_seconds

UNLIMITED = 1 << 40


@dataclass(frozen=True, slots=True)
class DescribedServer:
    """A server as it is described."""

    name: str
    weight: int = 1
    workers: int = 0  # requests that it works on at once, the others wait at it in the order in which they came; 0: all at once
    max_connections: int = 0  # requests that the balancer has on it at most; 0: no limit
    backup: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a server for a while. It counts for the requests that the server begins in that time."""

    server: str
    begin_s: float
    end_s: float
    factor: float = 1.0  # requests take so many times as long
    fails_in_s: float | None = None  # they fail after so many seconds; None: they do not
    stalls: bool = False  # none is begun before the end


_TROUBLE = re.compile(r"(?P<server>\S+) (?:slow (?P<factor>\S+)|fail(?: in (?P<fails_in>\S+))?|(?P<stalls>stall))"
                      r" from (?P<begin>\S+)(?: to (?P<end>\S+))?")


def parse_trouble(text: str, names: Sequence[str]) -> Trouble:
    """A trouble from words, such as "b slow 10 from 5s to 20s". Raises ValueError."""
    found = _TROUBLE.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(f'{text!r}: expected "SERVER slow FACTOR from TIME to TIME"; instead of "slow FACTOR" also "fail", '
                         '"fail in TIME" or "stall"')
    if found["server"] not in names:
        raise ValueError(f"{text!r}: there is no server {found['server']!r}; there are {', '.join(names)}")
    begin_s, end_s = parse_seconds(found["begin"]), parse_seconds(found["end"]) if found["end"] else float("inf")
    if begin_s >= end_s:
        raise ValueError(f"{text!r}: it ends before it begins")
    if found["stalls"]:
        if not found["end"]:
            raise ValueError(f'{text!r}: a server that stands still needs an end ("to TIME")')
        return Trouble(found["server"], begin_s, end_s, stalls=True)
    if found["factor"] is None:
        return Trouble(found["server"], begin_s, end_s, fails_in_s=parse_seconds(found["fails_in"] or "1ms"))
    try:
        factor = float(found["factor"].lstrip("x"))
    except ValueError:
        factor = 0.0
    if not 0.001 <= factor <= 10_000:
        raise ValueError(f"{text!r}: {found['factor']!r} is no factor; expected a number from 0.001 to 10000")
    return Trouble(found["server"], begin_s, end_s, factor)


def check_troubles(troubles: Sequence[Trouble]) -> None:
    """Raise ValueError when two troubles of one server overlap."""
    ordered = sorted(troubles, key=lambda trouble: (trouble.server, trouble.begin_s))
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before.server == after.server and after.begin_s < before.end_s:
            raise ValueError(f"server {after.server}: a trouble from {after.begin_s:g} s on begins before the one from "
                             f"{before.begin_s:g} s on has ended")


def parse_server(text: str, default_workers: int) -> DescribedServer:
    """A server from words, such as "a weight=2 workers=4 max_connections=20 backup". Raises ValueError."""
    name, *options = text.split() or [""]
    if not name:
        raise ValueError("a server needs a name")
    values = {"workers": default_workers, "weight": 1, "max_connections": 0}
    least = {"workers": 0, "weight": 1, "max_connections": 0}
    backup = False
    for option in options:
        key, _, value = option.partition("=")
        if option == "backup":
            backup = True
        elif key in values and re.fullmatch("[0-9]{1,7}", value) and least[key] <= int(value) <= 1_000_000:
            values[key] = int(value)
        else:
            raise ValueError(f"server {name}: {shown(option)} is no option; expected weight=N, workers=N, max_connections=N or "
                             "backup")
    return DescribedServer(name, values["weight"], values["workers"], values["max_connections"], backup)
