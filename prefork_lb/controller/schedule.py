"""When which server is checked.

A check alone after a pause costs two to three times the CPU of one that follows another: caches are cold, threads are woken.
So the checks that are due are started together, ten times a second, and one thread makes them one after the other. A check that
has not begun a tenth of a second later gets a thread of its own: one before it hangs or is slow.
"""
from __future__ import annotations

import heapq
import itertools
import logging
import math
import queue
import random
import threading
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from prefork_lb.clock import Clock, monotonic
from prefork_lb.controller.probe import CheckOutcome, Probe
from prefork_lb.controller.streak import CheckState, Streak

MOST_THREADS = 512

_JITTER = 0.1  # of an interval, so that the checks of many servers and many controllers drift apart
_FIRST_WITHIN_S = 1.0
_FIRST_GAP_S = 0.01
_TOGETHER_S = 0.1
_THREAD_IDLE_S = 30.0
_QUIET_S = 10.0  # between two messages on checks that this host cannot make, or not at once

log = logging.getLogger("prefork_lb")


class CheckRules(NamedTuple):
    """How often a server is checked, and how many checks in a row change its state."""

    interval_s: float
    fast_interval_s: float  # while the server is between two states; `interval_s`, where that is shorter
    rise: int
    fall: int
    start: str = "up"  # a new server's state: "up" or "checking"


@dataclass(frozen=True, slots=True)
class Target:
    """A server to be checked. `state`: what is known of it from before; None: what `rules.start` says."""

    key: Hashable
    probe: Probe
    rules: CheckRules
    state: CheckState | None = None

    @property
    def first_state(self) -> CheckState:
        return self.state or CheckState(self.rules.start)


class Probes(Protocol):
    """What makes the checks: a `Prober`."""

    def probe(self, probe: Probe) -> CheckOutcome:
        """Make one check. May take long; must not raise."""

    def keep(self, probes: Collection[Probe]) -> None:
        """Forget what is kept for other probes."""


ReportResult = Callable[[Hashable, CheckState, CheckOutcome], None]
"""Called after every check: the target's key, its state now, and the outcome of the check."""


class CheckSchedule:
    """Checks the targets again and again and reports each check.

    Reports come from any thread, but one at a time, and never of a target that `set_targets` has removed. One target is
    never checked twice at a time; one that hangs occupies a thread and delays nobody, up to `most_threads`.
    """

    def __init__(self, prober: Probes, report: ReportResult, clock: Clock = monotonic, rng: random.Random | None = None,
                 most_threads: int = MOST_THREADS) -> None:
        self._prober = prober
        self._report = report
        self._clock = clock
        self._rng = rng or random.Random()
        self._threads = _JobThreads(most_threads, clock)
        # Taken before `_lock` where both are: a report may take its time, and the schedule does not wait for it.
        self._reporting = threading.RLock()
        self._lock = threading.RLock()
        self._entries: dict[Hashable, _Entry] = {}
        self._heap: list[tuple[float, int, _Entry]] = []
        self._numbers = itertools.count()
        self._busy: set[Hashable] = set()
        self._quiet_until = -math.inf  # for checks that this host could not make

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Check these from now on, and no others.

        A target with an equal key, probe and rules goes on as it was, whatever its `state` says. Others begin with theirs
        and are checked at once, within a second when they are many.
        """
        targets = list(targets)
        with self._reporting, self._lock:
            self._prober.keep({target.probe for target in targets})
            known, self._entries = self._entries, {}
            new = []
            for target in targets:
                entry = known.get(target.key)
                if entry is None or (entry.target.probe, entry.target.rules) != (target.probe, target.rules):
                    entry = _Entry(target)
                    new.append(entry)
                self._entries[target.key] = entry
            self._heap = [item for item in self._heap if self._entries.get(item[2].target.key) is item[2]]
            heapq.heapify(self._heap)
            now = self._clock()
            for number, entry in enumerate(new):
                within_s = min(entry.target.rules.interval_s, _FIRST_WITHIN_S)
                self._plan(entry, now + number * min(_FIRST_GAP_S, within_s / len(new)))

    def run(self, stop: threading.Event) -> None:
        """Start checks as they become due, at most a tenth of a second late, until `stop` is set."""
        while not stop.is_set():
            self.tick()
            stop.wait(_TOGETHER_S)

    def tick(self) -> float:
        """Start the checks that are due, and threads for those that have waited for one since the last tick.

        Returns the seconds until the next check is due, as far as is known now; infinity if nothing is.
        """
        self._threads.grow()
        with self._lock:
            now = self._clock()
            while self._heap and self._heap[0][0] <= now:
                entry = heapq.heappop(self._heap)[2]
                key = entry.target.key
                if self._entries.get(key) is not entry:
                    continue
                if key in self._busy:  # the check of a target that was replaced; `_done` plans this one
                    entry.waits = True
                    continue
                self._busy.add(key)
                self._threads.do(lambda entry=entry, now=now: self._check(entry, now))  # type: ignore[misc]
            return self._heap[0][0] - now if self._heap else math.inf

    @property
    def is_idle(self) -> bool:
        """Whether no check is under way or waits for a thread."""
        with self._lock:
            return not self._busy

    def close(self) -> None:
        """End the threads, each after the check that it makes; nothing is reported any more. `run` must have been stopped."""
        with self._reporting, self._lock:
            self._entries = {}
            self._heap = []
        self._threads.close()

    def _plan(self, entry: _Entry, due: float) -> None:
        heapq.heappush(self._heap, (due, next(self._numbers), entry))

    def _check(self, entry: _Entry, started: float) -> None:
        if self._entries.get(entry.target.key) is entry:  # it may have waited for a thread
            outcome = self._prober.probe(entry.target.probe)
            with self._reporting:
                if self._entries.get(entry.target.key) is entry:
                    self._tell(entry, outcome)
        self._done(entry, started)

    def _tell(self, entry: _Entry, outcome: CheckOutcome) -> None:
        if outcome.passed is None:
            if self._clock() >= self._quiet_until:
                self._quiet_until = self._clock() + _QUIET_S
                log.error("checks cannot be made, servers stay as they are: %s", outcome.reason)
            return
        state = entry.streak.note(outcome.passed)
        try:
            self._report(entry.target.key, state, outcome)
        except Exception:
            log.exception("a check of %s could not be reported", entry.target.probe.address)

    def _done(self, entry: _Entry, started: float) -> None:
        key = entry.target.key
        with self._lock:
            self._busy.discard(key)
            current = self._entries.get(key)
            if current is entry:
                self._plan(entry, max(started + self._interval_s(entry), self._clock()))
            elif current is not None and current.waits:
                current.waits = False
                self._plan(current, self._clock())

    def _interval_s(self, entry: _Entry) -> float:
        rules = entry.target.rules
        interval_s = rules.interval_s
        if not entry.streak.is_settled:
            interval_s = min(interval_s, rules.fast_interval_s)
        return interval_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)


class _Entry:
    """A target and the results of its checks so far."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.streak = Streak(target.first_state, target.rules.rise, target.rules.fall)
        self.waits = False  # due, and in no heap, until the check of its predecessor has ended


class _JobThreads:
    """Daemon threads that do jobs: one at first; `grow` starts one for each job that waits, up to `most`. Idle ones end."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._quiet_until = -math.inf
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._is_closed = False

    def do(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if self._threads == 0:
            self._start(1)

    def grow(self) -> None:
        """Start a thread for every job that waits for one."""
        if not self._jobs.empty():
            self._start(self._jobs.qsize())

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            for _ in range(self._threads):
                self._jobs.put(None)

    def _start(self, count: int) -> None:
        with self._lock:
            for _ in range(0 if self._is_closed else min(count, self._most - self._threads)):
                try:
                    threading.Thread(target=self._work, name="prefork_lb check", daemon=True).start()
                except RuntimeError:  # the system allows no more; the present ones do the jobs, later
                    if self._clock() >= self._quiet_until:
                        self._quiet_until = self._clock() + _QUIET_S
                        log.error("no thread for one more check at a time; there are %d", self._threads)
                    return
                self._threads += 1

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_THREAD_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if not self._jobs.empty():
                        continue
                    self._threads -= 1
                    return
            if job is None:
                return
            try:
                job()
            except Exception:
                log.exception("a check failed in a way that it must not")
