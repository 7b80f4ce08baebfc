"""The access log read back: lines to entries, the ones that are asked for, and more as they come."""
from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

Entry = dict[str, Any]
"""A line in JSON, as `log_schema.FIELDS` says."""

_PIECE_BYTES = 1 << 18
_LOOK_EVERY_S = 0.25
_STATUS = re.compile(r"([1-5])xx|(\d{3})(?:-(\d{3}))?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def statuses(text: str) -> range:
    """The statuses of "502", "5xx" or "500-504". Raises ValueError."""
    found = _STATUS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no status; expected one like 502, 5xx or 500-504")
    kind, first, last = found.groups()
    return range(int(kind) * 100, int(kind) * 100 + 100) if kind else range(int(first), int(last or first) + 1)


def duration_s(text: str) -> float:
    """The seconds of "500ms", "1.5s", "15m", "2h" or "1d". Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no duration; expected one like 500ms, 1.5s, 15m, 2h or 1d")
    return float(found[1]) * _UNITS_S[found[2]]


def moment(text: str, now: datetime) -> str:
    """A moment as lines write it: so long ago ("15m"), or an ISO date with a time or without, local if it names no zone.

    Raises ValueError.
    """
    if _DURATION.fullmatch(text):
        at = datetime.fromtimestamp(now.timestamp() - duration_s(text), UTC)
    else:
        try:
            at = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise ValueError(f"{text!r} is no time; expected one like 15m (ago) or 2026-01-31T12:00") from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


@dataclass(slots=True)
class Wanted:
    """Which lines; those that fulfil all that is set."""

    statuses: tuple[range, ...] = ()
    pool: str = ""
    server: str = ""
    path: str = ""  # what the target begins with
    client: str = ""
    since: str = ""
    slow_ms: float = 0.0
    request: str = ""  # its ID, or that of its trace

    def matches(self, entry: Entry) -> bool:
        """Whether this line is one of them."""
        return ((not self.statuses or any(entry.get("status") in each for each in self.statuses))
                and (not self.pool or entry.get("pool") == self.pool)
                and (not self.server or entry.get("server") == self.server
                     or any(failure.startswith(f"{self.server}: ") for failure in entry.get("failures", ())))
                and (not self.path or str(entry.get("target", "")).startswith(self.path))
                and (not self.client or entry.get("client") == self.client)
                and (not self.since or str(entry.get("time", "")) >= self.since)
                and (not self.slow_ms or entry.get("total_ms", 0.0) >= self.slow_ms)
                and (not self.request or self.request in (entry.get("request_id"), entry.get("trace_id"))))


@dataclass(slots=True)
class Reader:
    """Reads lines, and counts those that are none of a log in JSON."""

    bad: int = 0
    _decode: Callable[[bytes], Any] = field(default_factory=lambda: msgspec.json.Decoder().decode)

    def entries(self, lines: Iterable[bytes]) -> Iterator[Entry]:
        """The lines as entries."""
        for line in lines:
            if line.isspace():
                continue
            try:
                entry = self._decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                entry = None
            if isinstance(entry, dict) and "time" in entry and "status" in entry:
                yield entry
            else:
                self.bad += 1


def lines_of(name: str) -> Iterator[bytes]:
    """The lines of a file; "-" is standard input, and what ends in .gz is decompressed. Raises OSError."""
    if name == "-":
        yield from sys.stdin.buffer
        return
    file: IO[bytes]
    with (gzip.open(name, "rb") if name.endswith(".gz") else open(name, "rb")) as file:  # type: ignore[assignment]
        yield from file


def follow_file(name: str, wait: Callable[[float], None]) -> Iterator[bytes]:
    """The lines of a file, and those that come, also when it is moved away or cut and a new one is begun. Never ends.

    `wait` is called, with seconds, when there is nothing more for now. Raises OSError when the file is not there at the start.
    """
    file = open(name, "rb")
    try:
        rest = b""
        while True:
            data = file.read(_PIECE_BYTES)
            if data:
                *lines, rest = (rest + data).split(b"\n")
                yield from (line + b"\n" for line in lines)
                continue
            if _is_another(file, name):
                # What came between the last look and the move is still to be read.
                if not (data := file.read()):
                    file.close()
                    file, rest = open(name, "rb"), b""
                    continue
                *lines, rest = (rest + data).split(b"\n")
                yield from (line + b"\n" for line in lines)
                continue
            wait(_LOOK_EVERY_S)
    finally:
        file.close()


def _is_another(file: IO[bytes], name: str) -> bool:
    """Whether another file has the name by now, or this one was cut."""
    mine = os.fstat(file.fileno())
    try:
        there = os.stat(name)
    except FileNotFoundError:
        return False  # moved away; a new one comes
    if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
        return True
    if there.st_size < file.tell():
        file.seek(0)
    return False
