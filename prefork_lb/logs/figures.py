"""What many lines of the access log say together."""
from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

from prefork_lb.logs.reading import Entry

_MOST_PATHS = 10_000
OTHER_PATHS = "(other paths)"


@dataclass(slots=True)
class RequestTimes:
    """Milliseconds of requests."""

    all: array[float] = field(default_factory=lambda: array("d"))
    is_sorted: bool = True

    def note(self, milliseconds: float) -> None:
        self.all.append(milliseconds)
        self.is_sorted = False

    def percentile(self, share: float) -> float:
        """The time within which this share of the requests was over; 0 without any."""
        if not self.is_sorted:
            self.all = array("d", sorted(self.all))
            self.is_sorted = True
        return self.all[min(len(self.all) - 1, int(share * len(self.all)))] if self.all else 0.0


@dataclass(slots=True)
class ServerFigures:
    """Of one server of a pool."""

    requests: int = 0
    errors: int = 0  # answers with 5xx, and those that it broke off
    failures: int = 0  # attempts that came to nothing
    last: str = ""  # what was last said of a failure
    times: RequestTimes = field(default_factory=RequestTimes)


@dataclass(slots=True)
class LogFigures:
    """Of all lines that were added."""

    requests: int = 0
    first: str = ""
    last: str = ""
    classes: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    times: RequestTimes = field(default_factory=RequestTimes)
    paths: dict[str, RequestTimes] = field(default_factory=dict)
    servers: dict[tuple[str, str], ServerFigures] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """One more line."""
        self.requests += 1
        moment, status, total_ms = str(entry["time"]), entry["status"], float(entry.get("total_ms", 0.0))
        self.first, self.last = min(self.first or moment, moment), max(self.last, moment)
        self.classes[f"{status // 100}xx"] += 1
        self.endings[str(entry.get("ending", "?"))] += 1
        self.times.note(total_ms)
        path = str(entry.get("target", "-")).partition("?")[0]
        if path not in self.paths and len(self.paths) >= _MOST_PATHS:
            path = OTHER_PATHS
        self.paths.setdefault(path, RequestTimes()).note(total_ms)
        self._add_server(entry, status, total_ms)

    def _add_server(self, entry: Entry, status: int, total_ms: float) -> None:
        pool = str(entry.get("pool", ""))
        for failure in entry.get("failures", ()):
            name, _, what = failure.partition(": ")
            failed = self._server(pool, name)
            failed.failures += 1
            failed.last = what
        if "server" not in entry:
            return
        server = self._server(pool, entry["server"])
        server.requests += 1
        server.times.note(total_ms)
        if status >= 500 or entry.get("ending") == "server broke off":
            server.errors += 1
            server.last = entry.get("error") or server.last or f"status {status}"

    def _server(self, pool: str, name: str) -> ServerFigures:
        return self.servers.setdefault((pool, name), ServerFigures())

    def slowest_paths(self, most: int) -> list[tuple[str, RequestTimes]]:
        """The paths with the highest 99th percentile, the slowest first."""
        return sorted(self.paths.items(), key=lambda item: (-item[1].percentile(0.99), item[0]))[:most]
