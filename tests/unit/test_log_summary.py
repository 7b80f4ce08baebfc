"""Lines that come with every request are written once a second, with their number."""
from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Iterator

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.log_summary import LogSummary


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock(100.0)
        self.log = logging.getLogger("prefork_lb.tests.summary")
        self.log.setLevel(logging.INFO)
        self.summary = LogSummary(self.log, self.clock)
        self.records: list[logging.LogRecord] = []
        self.handler = logging.Handler()
        self.handler.emit = self.records.append  # type: ignore[method-assign]
        self.log.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        found = [record.getMessage() for record in self.records]
        self.records.clear()
        return found

    def refuse(self, times: int = 1, pool: str = "web") -> None:
        for number in range(times):
            self.summary.tell(logging.INFO, ("full", pool), "pool %s: request %d is refused", pool, number)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.summary.tick()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.log.removeHandler(made.handler)


def test_the_first_is_written_at_once_and_the_others_are_counted(bench: Bench) -> None:
    bench.refuse(1000)
    assert bench.lines == ["pool web: request 0 is refused"]
    bench.pass_time(0.9)
    assert bench.lines == []
    bench.pass_time(0.1)
    assert bench.lines == ["999 more in 1.0 s like this: pool web: request 1 is refused"]


def test_what_goes_on_is_one_line_a_second(bench: Bench) -> None:
    bench.refuse()
    for _ in range(20):
        bench.refuse(950)
        for _ in range(4):
            bench.pass_time(0.25)
    lines = bench.lines
    assert len(lines) == 21 and all(line.startswith("950 more in 1.0 s") for line in lines[1:])


def test_one_alone_has_no_summary_and_the_next_is_written_at_once(bench: Bench) -> None:
    bench.refuse()
    bench.pass_time(1)
    bench.refuse()
    assert bench.lines == ["pool web: request 0 is refused"] * 2
    bench.pass_time(5)
    assert bench.lines == []


def test_kinds_are_counted_apart(bench: Bench) -> None:
    bench.refuse(2)
    bench.refuse(3, pool="api")
    bench.pass_time(1)
    assert [line.split(":")[0] for line in bench.lines] == [
        "pool web", "pool api", "1 more in 1.0 s like this", "2 more in 1.0 s like this"]


def test_kinds_without_end_take_bounded_memory_and_bounded_lines(bench: Bench) -> None:
    for number in range(100_000):
        bench.summary.tell(logging.INFO, number, "the client says %d", number)
    assert len(bench.summary._kinds) < 300
    bench.pass_time(1)
    lines = bench.lines
    assert len(lines) < 300 and lines[-1].startswith(f"{100_000 - len(lines) + 1} more in 1.0 s like this: the client says ")


def test_it_is_written_also_when_nobody_ticks(bench: Bench) -> None:
    bench.refuse(5)
    bench.clock.advance(3)
    bench.refuse()
    assert bench.lines == ["pool web: request 0 is refused", "5 more in 3.0 s like this: pool web: request 1 is refused"]


def test_at_the_end_nothing_is_left_out(bench: Bench) -> None:
    bench.refuse(5)
    bench.summary.flush()
    assert bench.lines[1:] == ["4 more in 0.0 s like this: pool web: request 1 is refused"]
    bench.summary.flush()
    assert bench.lines == []


def test_a_level_that_is_not_logged_costs_nothing(bench: Bench) -> None:
    bench.log.setLevel(logging.WARNING)
    bench.refuse(5)
    assert bench.lines == [] and not bench.summary._kinds


def test_a_traceback_is_written_with_the_first(bench: Bench) -> None:
    for _ in range(2):
        try:
            raise LookupError("mine")
        except LookupError as exc:
            bench.summary.tell(logging.ERROR, "internal", "internal error: %r", exc, exc_info=exc)
    assert [record.exc_info is not None for record in bench.records] == [True]
    bench.pass_time(1)
    assert bench.lines[1:] == ["1 more in 1.0 s like this: internal error: LookupError('mine')"]


def test_what_is_counted_keeps_nothing_alive(bench: Bench) -> None:
    class Held(Exception):
        pass

    def tell() -> weakref.ref[Held]:
        held = Held("text")
        bench.summary.tell(logging.INFO, "kind", "%s", held)
        return weakref.ref(held)

    bench.refuse()
    tell()
    counted = tell()
    gc.collect()
    assert counted() is None


def test_threads_lose_no_count(bench: Bench) -> None:
    threads = [threading.Thread(target=bench.refuse, args=(5000,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.pass_time(1)
    assert bench.lines[-1].startswith("19999 more")
