"""Checks by a prober that does what the test says, on a clock of the test."""
from __future__ import annotations

import queue
import random
import threading
from collections.abc import Collection, Hashable

from prefork_lb.clock import ManualClock
from prefork_lb.controller.probe import CheckOutcome, Probe
from prefork_lb.controller.schedule import CheckRules, CheckSchedule, Target
from prefork_lb.controller.streak import CheckState
from prefork_lb.net.address import Address
from tests.support.waiting import wait_until

UP, DOWN, CHECKING = CheckState.UP, CheckState.DOWN, CheckState.CHECKING
RULES = CheckRules(interval_s=2.0, fast_interval_s=0.5, rise=2, fall=3)
DEADLINE_S = 10.0


class FakeProber:
    """Answers as told, at once, or when `hang` is set only when it is let go."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[Probe] = queue.SimpleQueue()
        self.failing: set[Probe] = set()
        self.cannot: set[Probe] = set()
        self.hanging: dict[Probe, threading.Event] = {}
        self.kept: Collection[Probe] = ()
        self._lock = threading.Lock()
        self._running: list[Probe] = []
        self.twice: list[Probe] = []

    def probe(self, probe: Probe) -> CheckOutcome:
        with self._lock:
            if probe in self._running:
                self.twice.append(probe)
            self._running.append(probe)
        self.asked.put(probe)
        hanging = self.hanging.get(probe)
        if hanging is not None:
            hanging.wait(DEADLINE_S)
        with self._lock:
            self._running.remove(probe)
        return CheckOutcome(None if probe in self.cannot else probe not in self.failing, "as told", 0.001)

    def keep(self, probes: Collection[Probe]) -> None:
        self.kept = probes


def probe_of(number: int) -> Probe:
    return Probe("tcp", Address("127.0.0.1", number))


def target(number: int, rules: CheckRules = RULES, state: CheckState | None = None) -> Target:
    return Target(number, probe_of(number), rules, state)


class Rig:
    """Checks with a fake prober on a manual clock; every report is waited for."""

    def __init__(self, most_threads: int = 100) -> None:
        self.clock = ManualClock(1000.0)
        self.prober = FakeProber()
        self.reports: queue.SimpleQueue[tuple[Hashable, CheckState, bool | None]] = queue.SimpleQueue()
        self.checks = CheckSchedule(self.prober, self.report, self.clock, random.Random(1), most_threads)

    def report(self, key: Hashable, state: CheckState, outcome: CheckOutcome) -> None:
        self.reports.put((key, state, outcome.passed))

    def next_report(self) -> tuple[Hashable, CheckState, bool | None]:
        return self.reports.get(timeout=DEADLINE_S)

    def next_asked(self) -> Hashable:
        return self.prober.asked.get(timeout=DEADLINE_S).address.port

    def hang(self, number: int) -> threading.Event:
        return self.prober.hanging.setdefault(probe_of(number), threading.Event())

    def step(self) -> float:
        """Go to when the next check is due and start it; the seconds that this took."""
        wait_s = self.seconds_to_next()
        self.clock.advance(wait_s)
        self.checks.tick()
        return wait_s

    def seconds_to_next(self) -> float:
        """Of a single target whose report has come."""
        return wait_until(lambda: self.checks.is_idle and self.checks.tick(), "a check that is planned", DEADLINE_S)

    def tick_twice(self) -> None:
        """Start what is due, also what waits behind checks that hang."""
        self.checks.tick()
        self.checks.tick()

    def nothing_asked(self) -> bool:
        return self.prober.asked.empty()
