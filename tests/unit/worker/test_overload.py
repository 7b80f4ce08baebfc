"""When a worker says that it is too much, and who is let in then."""
from __future__ import annotations

import logging
import select
from collections.abc import Callable, Iterator

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.log_summary import LogSummary
from prefork_lb.worker.overload import Overload
from prefork_lb.worker.pending import PendingConnections

LIMIT_S = 0.5


class Hub:
    """What an overload and a lobby ask of a hub; the test says when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks: list[Callable[[], None]] = []
        self.timers: list[Callable[[], None]] = []
        self.came_back: Callable[[], None] | None = None
        self.round = 0
        self.jobs: list[Callable[[], None]] = []
        self.turns = self

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        self.came_back, self.descriptor = callback, descriptor

    def unwatch(self, descriptor: int) -> None:
        self.came_back = None

    def every(self, interval_s: float, task: Callable[[], None]) -> None:
        self.looks.append(task)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def run_job(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def after(self, job: Callable[[], None]) -> None:
        job()

    def limit_round(self, events: int) -> None:
        self.round = events


class Bench:
    def __init__(self) -> None:
        self.hub, self.clock = Hub(), ManualClock(100.0)
        self.summary = LogSummary(logging.getLogger("prefork_lb"), self.clock)
        self.lags: list[float] = []
        self.shed = 0
        self.overload = Overload(self.hub, LIMIT_S, self.clock, self.summary, self.lags.append, self._note_shed)  # type: ignore

    def _note_shed(self) -> None:
        self.shed += 1

    def look(self) -> None:
        self.clock.advance(0.05)
        self.hub.looks[0]()

    def is_under_way(self) -> bool:
        waiting = select.poll()
        waiting.register(self.hub.descriptor, select.POLLIN)
        return bool(waiting.poll(0))

    def lag(self, seconds: float, times: int = 1) -> None:
        """Probes that take so long."""
        for _ in range(times):
            if not self.is_under_way():
                self.look()
            self.clock.advance(seconds)
            assert self.hub.came_back is not None
            self.hub.came_back()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.overload.close()


def test_a_lag_that_stays_is_an_overload(bench: Bench) -> None:
    bench.lag(0.6, times=2)
    assert not bench.overload.is_high and bench.hub.round
    bench.lag(0.6)
    assert bench.overload.is_high


def test_a_stall_is_none(bench: Bench) -> None:
    for _ in range(5):
        bench.lag(1.4)
        bench.lag(0.01)
        assert not bench.overload.is_high and bench.hub.round == 0


def test_a_stall_without_end_is_one(bench: Bench) -> None:
    bench.look()
    bench.clock.advance(LIMIT_S + 1.0)
    bench.hub.looks[0]()
    assert bench.overload.is_high


def test_a_round_that_lets_no_timer_run_is_lag(bench: Bench) -> None:
    """The probe of that time was not sent, and would have come back after it."""
    for _ in range(3):
        bench.clock.advance(0.6)
        bench.hub.looks[0]()
        bench.lag(0.001)
    assert bench.overload.is_high


def test_who_has_waited_too_long_is_refused_and_nobody_else(bench: Bench) -> None:
    assert not bench.overload.must_refuse()
    bench.lag(0.6, times=3)
    assert bench.is_under_way() and not bench.overload.must_refuse()
    bench.clock.advance(LIMIT_S)
    assert not bench.overload.must_refuse()
    bench.clock.advance(0.01)
    assert bench.overload.must_refuse()


def test_it_is_over_when_the_lag_has_been_small_for_a_while(bench: Bench) -> None:
    bench.lag(0.6, times=3)
    bench.lag(0.2, times=4)
    assert bench.overload.is_high
    bench.lag(0.4)  # not small
    bench.lag(0.2, times=5)
    assert bench.overload.is_high
    bench.lag(0.2, times=2)
    assert not bench.overload.is_high


def test_refusals_are_told_once_a_second(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2000):
        bench.overload.count_refusal()
    assert [record.message for record in caplog.records] == ["overload: a request or a connection is refused"]
    bench.clock.advance(1)
    bench.summary.tick()
    assert caplog.records[-1].message == "1999 more in 1.0 s like this: overload: a request or a connection is refused"


def test_without_a_limit_nothing_is_measured() -> None:
    hub = Hub()
    overload = Overload(hub, 0.0, ManualClock())  # type: ignore[arg-type]
    assert not hub.looks and hub.came_back is None and not overload.is_limited
    overload.close()


# -- the lobby -------------------------------------------------------------------------------------------------------


class Waiting:
    """A connection in the lobby."""

    def __init__(self, name: int, started: float) -> None:
        self.name, self.started = name, started
        self.stream = self
        self.descriptor = 7
        self.turned_away = False

    def serve(self) -> None:
        raise AssertionError("the hub runs it")

    def turn_away(self) -> None:
        self.turned_away = True


class TickingClock(ManualClock):
    """Each look takes a millisecond."""

    def __call__(self) -> float:
        self.advance(0.001)
        return self.now


def let_in(hub: Hub) -> list[int]:
    timers, hub.timers = hub.timers, []
    for timer in timers:
        timer()
    names = [job.__self__.name for job in hub.jobs]  # type: ignore[attr-defined]
    hub.jobs.clear()
    return names


def test_the_newest_comes_first_and_a_turn_is_short(bench: Bench) -> None:
    clock = TickingClock(100.0)
    pending = PendingConnections(bench.hub, bench.overload, clock)  # type: ignore[arg-type]
    connections = [Waiting(number, 100.0) for number in range(25)]
    for connection in connections:
        pending.enter(connection)  # type: ignore[arg-type]
    assert len(bench.hub.timers) == 1
    first = let_in(bench.hub)
    assert first == list(range(24, 24 - len(first), -1)) and 5 <= len(first) <= 11
    rest = [name for _ in range(5) for name in let_in(bench.hub)]
    assert sorted(first + rest) == list(range(25)) and not pending and not bench.hub.timers
    assert not any(connection.turned_away for connection in connections)


def test_the_oldest_is_turned_away_when_it_is_too_late(bench: Bench) -> None:
    clock = TickingClock(100.0)
    pending = PendingConnections(bench.hub, bench.overload, clock)  # type: ignore[arg-type]
    connections = [Waiting(number, 100.0 - (LIMIT_S + 0.001 if number < 5 else 0)) for number in range(40)]
    connections[2].descriptor = -1  # the worker has ended it
    for connection in connections:
        pending.enter(connection)  # type: ignore[arg-type]
    let_in(bench.hub)
    assert [connection.name for connection in connections if connection.turned_away] == [0, 1, 3, 4]
    assert pending and bench.hub.timers


def test_the_greatest_lag_of_a_second_is_told_and_then_what_comes_after(bench: Bench) -> None:
    bench.lag(0.3)
    bench.lag(0.02, times=5)
    assert len(bench.lags) == 1
    bench.lag(0.02, times=15)
    assert {round(lag, 2) for lag in bench.lags[1:]} == {0.02}


def test_each_refusal_is_told(bench: Bench) -> None:
    bench.overload.count_refusal()
    bench.overload.count_refusal()
    assert bench.shed == 2
