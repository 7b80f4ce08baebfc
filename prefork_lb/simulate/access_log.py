"""Access logs: from lines to a load. Common and combined format, and JSON.

Behind the combined format's fields may stand how long the request took, as `0.003` or `rt=0.003` (seconds, with a point: nginx's
$request_time, gunicorn's %(L)s) or `3000` (microseconds, a whole number: Apache's and gunicorn's %D).
"""
from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from prefork_lb.simulate.load import ReplayedLoad
from prefork_lb.simulate.service_times import ServiceTimes

_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_LINE = re.compile(rf'(\S+) \S+ .*?\[([^\]]{{1,64}})\] {_QUOTED} \d{{3}} \S+(?: {_QUOTED} {_QUOTED})?(?: "?(.*))?')
_DURATION = re.compile(r"(?:(?:rt|request_time|duration)=)?(\d+(\.\d*)?)\b")
_TIME_FORMAT = "%d/%b/%Y:%H:%M:%S %z"
_TIMES = "time", "timestamp", "@timestamp", "ts", "time_iso8601", "time_local", "msec"
_DURATIONS = (("seconds", 1.0), ("duration", 1.0), ("request_time", 1.0), ("duration_s", 1.0), ("total_ms", 1e-3),
              ("duration_ms", 1e-3), ("duration_us", 1e-6))
_CLIENTS = "client", "remote_addr", "remote_ip", "client_ip"
_TARGETS = "target", "uri", "request_uri", "path"
_LONGEST_S = 86400.0
_SHOWN = 5  # numbers of bad lines


class LogError(ValueError):
    """A log that cannot be replayed."""


@dataclass(slots=True)
class ReadLog:
    """The requests of a log as far as it has been read."""

    times: array[float] = field(default_factory=lambda: array("d"))
    durations: array[float] = field(default_factory=lambda: array("d"))
    clients: list[str] = field(default_factory=list)
    targets: list[bytes] = field(default_factory=list)
    bad: int = 0
    first_bad: list[int] = field(default_factory=list)  # line numbers

    @property
    def notice(self) -> str:
        """What was left out, in words; empty: nothing."""
        if not self.bad:
            return ""
        lines = ", ".join(map(str, self.first_bad)) + (", ..." if self.bad > len(self.first_bad) else "")
        return f"{self.bad} {'line is' if self.bad == 1 else 'lines are'} no line of an access log and left out: {lines}"

    def load(self, service: ServiceTimes | None, speed: float = 1.0) -> ReplayedLoad:
        """The load. `service` is how long requests take, in place of what the log says. Raises LogError."""
        if not self.times:
            raise LogError(f"no line of an access log among {self.bad} lines; expected the common or combined format, or JSON"
                           if self.bad else "the log is empty")
        has_durations = len(self.durations) == len(self.times)
        if not has_durations and service is None:
            silent = len(self.times) - len(self.durations)
            who = f"{silent} of its lines do not tell" if self.durations else "the log does not tell"
            raise LogError(f"{who} how long requests took: give --service, or log the time, too")
        first = min(self.times)
        return ReplayedLoad(array("d", [time - first for time in self.times]), self.durations if has_durations else array("d"),
                            self.clients, self.targets, all(time.is_integer() for time in self.times), service, speed)


def read_log(lines: Iterable[bytes]) -> ReadLog:
    """Read a log, line by line. Lines that are none of an access log are counted and left out."""
    log = ReadLog()
    clock = _Clock()
    texts: dict[str, str] = {}
    paths: dict[bytes, bytes] = {}
    for number, line in enumerate(lines, 1):
        text = line.decode("latin-1").strip()
        if not text:
            continue
        try:
            time, seconds, client, target = _json(text, clock) if text.startswith("{") else _combined(text, clock)
            if seconds is not None and not 0 <= seconds <= _LONGEST_S:
                raise ValueError("no duration")
            if not math.isfinite(time):
                raise ValueError("no time")
        except (ValueError, TypeError, OverflowError, msgspec.DecodeError):
            log.bad += 1
            if len(log.first_bad) < _SHOWN:
                log.first_bad.append(number)
            continue
        log.times.append(time)
        if seconds is not None:
            log.durations.append(seconds)
        log.clients.append(texts.setdefault(client, client))  # the same come again: a million lines fit into memory
        log.targets.append(paths.setdefault(target, target))
    return log


_Entry = tuple[float, float | None, str, bytes]


class _Clock:
    """Times of a log as seconds; the same text comes many times in a row."""

    def __init__(self) -> None:
        self._text, self._seconds = "", 0.0

    def seconds(self, text: str) -> float:
        if text != self._text:
            try:
                self._seconds = datetime.strptime(text, _TIME_FORMAT).timestamp()
            except ValueError:
                self._seconds = datetime.fromisoformat(text).timestamp()
            self._text = text
        return self._seconds


def _combined(text: str, clock: _Clock) -> _Entry:
    found = _LINE.fullmatch(text)
    if found is None:
        raise ValueError("no line of an access log")
    client, time, request, _, _, rest = found.groups()
    parts = request.split(" ")
    seconds = None
    if rest and (duration := _DURATION.match(rest)):
        seconds = float(duration[1]) * (1.0 if duration[2] else 1e-6)
    return clock.seconds(time), seconds, client, parts[1].encode("latin-1") if len(parts) > 1 else b"/"


def _json(text: str, clock: _Clock) -> _Entry:
    values: dict[str, Any] = msgspec.json.decode(text.encode("latin-1"))
    request = values.get("request")
    if isinstance(request, dict):  # Caddy's
        values = {**request, **values}
    time = next((values[name] for name in _TIMES if name in values), None)
    if time is None:
        raise ValueError("no time")
    moment = clock.seconds(time.strip("[]")) if isinstance(time, str) and not _is_number(time) else float(time)
    seconds = next((float(values[name]) * unit for name, unit in _DURATIONS if values.get(name) is not None), None)
    client = next((str(values[name]) for name in _CLIENTS if name in values), "")
    target = next((str(values[name]) for name in _TARGETS if name in values), "/")
    return moment, seconds, client, target.encode()


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
