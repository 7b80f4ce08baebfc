"""The access log read back."""
from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from prefork_lb.errors import ConnectFailed
from prefork_lb.logs.figures import OTHER_PATHS, LogFigures
from prefork_lb.logs.lines import JSONLines
from prefork_lb.logs.reading import Reader, Wanted, duration_s, follow_file, lines_of, moment, statuses
from tests.unit.logs.records import record
from tests.unit.upstream.parts import new_server

ENTRY = {"time": "2026-01-31T12:00:00.000Z", "status": 502, "pool": "web", "server": "127.0.0.1:8001", "target": "/api/x?y",
         "client": "192.0.2.1", "total_ms": 600.0, "request_id": "r1", "trace_id": "t1", "ending": "server failed",
         "failures": ["127.0.0.1:8000: connect: refused"]}


@pytest.mark.parametrize(("text", "first", "last"), [("502", 502, 502), ("5xx", 500, 599), ("500-504", 500, 504)])
def test_statuses(text: str, first: int, last: int) -> None:
    found = statuses(text)
    assert (found[0], found[-1]) == (first, last)


def test_durations_and_moments() -> None:
    assert [duration_s(text) for text in ("500ms", "1.5s", "15m", "2h", "1d")] == [0.5, 1.5, 900, 7200, 86400]
    now = datetime(2026, 1, 31, 12, 0, 0, 5000, UTC)
    assert moment("15m", now) == "2026-01-31T11:45:00.005Z"
    assert moment("2026-01-31T12:00+01:00", now) == "2026-01-31T11:00:00.000Z"


@pytest.mark.parametrize("call", [lambda: statuses("6xx"), lambda: statuses("50"), lambda: duration_s("5"),
                                  lambda: duration_s("ms"), lambda: moment("yesterday", datetime.now(UTC))])
def test_what_is_none_of_these(call: Any) -> None:
    with pytest.raises(ValueError, match="expected one like"):
        call()


@pytest.mark.parametrize(("wanted", "is_there"), [
    (Wanted(), True), (Wanted(statuses=(statuses("404"), statuses("5xx"))), True), (Wanted(statuses=(statuses("404"),)), False),
    (Wanted(pool="web"), True), (Wanted(pool="we"), False), (Wanted(server="127.0.0.1:8001"), True),
    (Wanted(server="127.0.0.1:8000"), True), (Wanted(server="127.0.0.1:800"), False), (Wanted(path="/api/"), True),
    (Wanted(path="/x"), False), (Wanted(client="192.0.2.1"), True), (Wanted(client="192.0.2.2"), False),
    (Wanted(since="2026-01-31T12:00:00.000Z"), True), (Wanted(since="2026-01-31T12:00:00.001Z"), False),
    (Wanted(slow_ms=600), True), (Wanted(slow_ms=601), False), (Wanted(request="r1"), True), (Wanted(request="t1"), True),
    (Wanted(request="r"), False), (Wanted(pool="web", slow_ms=601), False),
])
def test_which_lines_are_wanted(wanted: Wanted, is_there: bool) -> None:
    assert wanted.matches(ENTRY) is is_there


def test_lines_that_are_none_are_counted() -> None:
    reader = Reader()
    lines = [JSONLines()(record()), b"\n", b"torn{", b"[1]\n", b'{"time":1}\n', b"\xff\n", JSONLines()(record())]
    assert len(list(reader.entries(lines))) == 2
    assert reader.bad == 4


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "access.log.1.gz", "wb") as file:
        file.write(b"one\ntwo\n")
    assert list(lines_of(str(tmp_path / "access.log.1.gz"))) == [b"one\n", b"two\n"]


class Followed:
    """A file that is followed; `wait` runs the next step when there is nothing more to read."""

    def __init__(self, path: Path, *steps: Any) -> None:
        self.steps = list(steps)
        self.found: list[bytes] = []
        lines: Iterator[bytes] = follow_file(str(path), self.wait)
        with pytest.raises(Finished):
            self.found.extend(line for line in self._noted(lines))

    def _noted(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            self.found.append(line)
            yield from ()

    def wait(self, seconds: float) -> None:
        if not self.steps:
            raise Finished
        self.steps.pop(0)()


class Finished(Exception):
    """All steps were made."""


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_what_comes_is_followed_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"one\n")
    followed = Followed(path, lambda: append(path, b"two\nthr"), lambda: append(path, b"ee\n"))
    assert followed.found == [b"one\n", b"two\n", b"three\n"]


def test_a_rotation_is_followed_and_what_came_before_it(tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    path.write_bytes(b"one\n")

    def rotate() -> None:
        path.rename(old)
        append(old, b"two\n")
        append(path, b"three\n")

    followed = Followed(path, lambda: path.rename(old), lambda: append(old, b"late\n"), lambda: old.rename(path), rotate,
                        lambda: append(path, b"four\n"))
    assert followed.found == [b"one\n", b"late\n", b"two\n", b"three\n", b"four\n"]


def test_a_file_that_was_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"one\n" * 100)
    followed = Followed(path, lambda: path.write_bytes(b"new\n"), lambda: None)
    assert followed.found[100:] == [b"new\n"]


def test_figures() -> None:
    figures, reader = LogFigures(), Reader()
    fast, slow = new_server(0), new_server(1)
    failed = record(target=b"/b?x", server=slow, error=ConnectFailed("refused"))
    retried = record(target=b"/a", server=fast)
    retried.failures = ("127.0.0.1:8001: connect: timed out",)
    lines = [JSONLines()(each) for each in (record(target=b"/a?1", server=fast), retried, failed)]
    for entry in reader.entries(lines):
        figures.add(entry)
    assert (figures.requests, dict(figures.classes)) == (3, {"2xx": 2, "5xx": 1})
    assert dict(figures.endings) == {"finished": 2, "server failed": 1}
    assert {path: len(times.all) for path, times in figures.paths.items()} == {"/a": 2, "/b": 1}
    server = figures.servers["web", "127.0.0.1:8001"]
    assert (server.requests, server.errors, server.failures, server.last) == (1, 1, 1, "connect: refused")
    assert figures.servers["web", "127.0.0.1:8000"].errors == 0


def test_percentiles_and_slow_paths() -> None:
    figures = LogFigures()
    for number in range(100):
        figures.add({**ENTRY, "target": "/fast", "total_ms": 1.0})
        figures.add({**ENTRY, "target": "/slow", "total_ms": float(number)})
    assert [path for path, _ in figures.slowest_paths(1)] == ["/slow"]
    slow = figures.paths["/slow"]
    assert (slow.percentile(0.5), slow.percentile(0.99), slow.percentile(1)) == (50, 99, 99)


def test_paths_without_end_are_summed_up() -> None:
    figures = LogFigures()
    for number in range(10_005):
        figures.add({**ENTRY, "target": f"/{number}"})
    assert len(figures.paths) == 10_001 and len(figures.paths[OTHER_PATHS].all) == 5
