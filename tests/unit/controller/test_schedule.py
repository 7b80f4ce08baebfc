"""The schedule of checks on a clock that stands still, and the state machine without any."""
from __future__ import annotations

import queue
import random
import threading
from collections.abc import Collection, Hashable, Iterator

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.controller.probe import Outcome, Probe
from prefork_lb.controller.schedule import CheckSchedule, Rules, Target
from prefork_lb.controller.streak import CheckState, Streak
from prefork_lb.net.address import Address
from tests.support.waiting import wait_until

UP, DOWN, CHECKING = CheckState.UP, CheckState.DOWN, CheckState.CHECKING
RULES = Rules(interval_s=2.0, fast_interval_s=0.5, rise=2, fall=3)
DEADLINE_S = 10.0


# -- The state machine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "checks", "states"), [
    (UP, "...", "UUU"),
    (UP, "xxx", "UUD"),
    (UP, "xx.xxx", "UUUUUD"),  # a pass begins the count again
    (DOWN, "xx", "DD"),
    (DOWN, "..", "DU"),
    (DOWN, ".x..", "DDDU"),
    (CHECKING, ".", "U"),
    (CHECKING, "xx.", "CCU"),
    (CHECKING, "xxx..", "CCDDU"),  # once down it needs `rise` passes like any other
    (UP, "xxx.xx..xxx", "UUDDDDDUUUD"),
])
def test_states_follow_checks(state: CheckState, checks: str, states: str) -> None:
    streak = Streak(state, rise=2, fall=3)
    assert "".join(streak.note(check == ".").name[0] for check in checks) == states
    assert streak.state.name[0] == states[-1]


def test_one_is_enough_where_the_rules_say_so() -> None:
    streak = Streak(UP, rise=1, fall=1)
    assert [streak.note(False), streak.note(True)] == [DOWN, UP]


@pytest.mark.parametrize(("state", "checks", "settled"), [
    (UP, "", True), (UP, "x", False), (UP, "x.", True), (UP, "xxx", True),
    (DOWN, "", True), (DOWN, ".", False), (DOWN, "..", True),
    (CHECKING, "", False), (CHECKING, "x", False), (CHECKING, ".", True), (CHECKING, "xxx", True),
])
def test_settled_is_when_the_last_check_agreed(state: CheckState, checks: str, settled: bool) -> None:
    streak = Streak(state, rise=2, fall=3)
    for check in checks:
        streak.note(check == ".")
    assert streak.is_settled is settled


# -- The schedule --------------------------------------------------------------------------------------------------


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

    def probe(self, probe: Probe) -> Outcome:
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
        return Outcome(None if probe in self.cannot else probe not in self.failing, "as told", 0.001)

    def keep(self, probes: Collection[Probe]) -> None:
        self.kept = probes


def probe_of(number: int) -> Probe:
    return Probe("tcp", Address("127.0.0.1", number))


def target(number: int, rules: Rules = RULES, state: CheckState | None = None) -> Target:
    return Target(number, probe_of(number), rules, state)


class Rig:
    """Checks with a fake prober on a manual clock; every report is waited for."""

    def __init__(self, most_threads: int = 100) -> None:
        self.clock = ManualClock(1000.0)
        self.prober = FakeProber()
        self.reports: queue.SimpleQueue[tuple[Hashable, CheckState, bool | None]] = queue.SimpleQueue()
        self.checks = CheckSchedule(self.prober, self.report, self.clock, random.Random(1), most_threads)

    def report(self, key: Hashable, state: CheckState, outcome: Outcome) -> None:
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


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    for event in rig.prober.hanging.values():
        event.set()
    rig.checks.close()


def test_a_new_target_is_checked_at_once_and_reported(rig: Rig) -> None:
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    assert rig.next_report() == (1, UP, True)
    assert set(rig.prober.kept) == {probe_of(1)}


def test_the_interval_is_kept_a_tenth_more_or_less(rig: Rig) -> None:
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    waits = []
    for _ in range(50):
        rig.next_report()
        waits.append(rig.step())
    assert min(waits) >= 1.8 and max(waits) <= 2.2
    assert max(waits) - min(waits) > 0.2  # of 0.4; 50 equal draws all within half of it: 1 in 10^13


def test_nothing_is_checked_before_it_is_due(rig: Rig) -> None:
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    rig.next_report()
    rig.next_asked()
    rig.clock.advance(rig.seconds_to_next() - 0.01)
    rig.checks.tick()
    assert rig.checks.is_idle and rig.nothing_asked()
    rig.clock.advance(0.02)
    rig.checks.tick()
    assert rig.next_asked() == 1


def test_a_check_that_cannot_be_made_changes_nothing_and_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.prober.cannot.add(probe_of(1))
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    for _ in range(4):
        rig.step()
    assert rig.reports.empty()
    assert caplog.messages == ["checks cannot be made, servers stay as they are: as told"]
    rig.prober.cannot.clear()
    rig.seconds_to_next()
    rig.step()
    assert rig.next_report() == (1, UP, True)


def test_a_server_that_changes_is_checked_faster_until_it_has(rig: Rig) -> None:
    rig.prober.failing.add(probe_of(1))
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    seen = []
    for number in range(6):
        if number == 4:
            rig.prober.failing.clear()
        state = rig.next_report()[1]
        seen.append((state, rig.seconds_to_next() < 1))
        rig.step()
    assert seen == [(UP, True), (UP, True), (DOWN, False), (DOWN, False), (DOWN, True), (UP, False)]


def test_a_fast_interval_that_is_the_slower_one_is_not_used(rig: Rig) -> None:
    rig.prober.failing.add(probe_of(1))
    rig.checks.set_targets([target(1, RULES._replace(fast_interval_s=60.0))])
    rig.checks.tick()
    rig.next_report()
    assert rig.seconds_to_next() <= 2.2


@pytest.mark.parametrize(("start", "state", "first"), [
    ("up", None, UP), ("checking", None, CHECKING), ("checking", DOWN, DOWN), ("up", CHECKING, CHECKING),
])
def test_what_was_known_before_goes_before_the_rules(rig: Rig, start: str, state: CheckState | None, first: CheckState) -> None:
    rig.prober.failing.add(probe_of(1))
    rig.checks.set_targets([target(1, RULES._replace(start=start), state)])
    rig.checks.tick()
    assert rig.next_report() == (1, first, False)


def test_many_new_targets_are_spread_over_a_second(rig: Rig) -> None:
    rig.checks.set_targets([target(number) for number in range(1, 501)])
    rig.checks.tick()
    assert rig.next_asked() == 1
    rig.clock.advance(0.5)
    rig.checks.tick()
    for _ in range(240):
        rig.next_asked()
    assert rig.prober.asked.qsize() <= 20
    rig.clock.advance(0.5)
    rig.checks.tick()
    assert len({rig.next_report()[0] for _ in range(500)}) == 500


def test_an_unchanged_target_keeps_its_state_and_its_turn(rig: Rig) -> None:
    rig.prober.failing.add(probe_of(1))
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    for _ in range(2):
        rig.next_report()
        rig.step()
    assert rig.next_report()[1] is DOWN
    before = rig.seconds_to_next()
    rig.checks.set_targets([target(1, state=UP)])
    assert rig.seconds_to_next() == before
    rig.step()
    assert rig.next_report()[1] is DOWN


@pytest.mark.parametrize("changed", [
    Target(1, probe_of(2), RULES, CHECKING), Target(1, probe_of(1), RULES._replace(rise=9), CHECKING),
])
def test_a_changed_target_begins_again(rig: Rig, changed: Target) -> None:
    rig.prober.failing |= {probe_of(1), probe_of(2)}
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    assert rig.next_report()[1] is UP
    rig.seconds_to_next()
    rig.checks.set_targets([changed])
    rig.checks.tick()
    assert rig.next_report() == (1, CHECKING, False)


def test_a_removed_target_is_not_checked_again(rig: Rig) -> None:
    rig.checks.set_targets([target(1), target(2)])
    rig.clock.advance(1)
    rig.checks.tick()
    assert {rig.next_report()[0] for _ in range(2)} == {1, 2}
    rig.checks.set_targets([target(2)])
    for _ in range(3):
        rig.step()
        assert rig.next_report()[0] == 2


def test_a_check_under_way_is_not_reported_when_its_target_is_removed(rig: Rig) -> None:
    hanging = rig.hang(1)
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    rig.next_asked()
    rig.checks.set_targets([])
    hanging.set()
    wait_until(lambda: rig.checks.is_idle, "the end of the check")
    assert rig.reports.empty()


def test_a_target_that_comes_back_waits_for_its_check_under_way(rig: Rig) -> None:
    """Never two checks of one target at a time, and the old one's result is not the new one's."""
    hanging = rig.hang(1)
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    rig.next_asked()
    rig.checks.set_targets([])
    rig.checks.set_targets([target(1, state=DOWN)])
    rig.checks.tick()
    rig.clock.advance(10)
    rig.checks.tick()
    assert rig.nothing_asked()
    hanging.set()
    wait_until(lambda: rig.checks.is_idle, "the end of the old check")
    assert rig.reports.empty()
    rig.checks.tick()
    assert rig.next_report() == (1, DOWN, True)
    assert rig.prober.twice == []


def test_a_check_that_takes_long_is_not_made_twice_and_the_next_follows_at_once(rig: Rig) -> None:
    hanging = rig.hang(1)
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    rig.next_asked()
    for _ in range(5):
        rig.clock.advance(2.5)
        rig.checks.tick()
    assert rig.nothing_asked() and not rig.checks.is_idle
    hanging.set()
    rig.next_report()
    wait_until(lambda: rig.checks.tick() and not rig.nothing_asked(), "the next check")
    assert rig.prober.twice == []


def test_servers_that_hang_do_not_delay_the_others(rig: Rig) -> None:
    for number in range(1, 51):
        rig.hang(number)
    rig.checks.set_targets([target(number) for number in range(1, 61)])
    rig.clock.advance(1)
    rig.tick_twice()
    assert {rig.next_report()[0] for _ in range(10)} == set(range(51, 61))
    assert rig.reports.empty()


def test_with_all_threads_taken_a_check_waits_and_is_made() -> None:
    rig = Rig(most_threads=2)
    hanging = [rig.hang(number) for number in (1, 2)]
    rig.checks.set_targets([target(number) for number in (1, 2, 3)])
    rig.clock.advance(1)
    rig.tick_twice()
    assert {rig.next_asked() for _ in range(2)} == {1, 2}
    assert rig.nothing_asked()
    hanging[0].set()
    assert {rig.next_report()[0] for _ in range(2)} == {1, 3}
    hanging[1].set()
    assert rig.next_report()[0] == 2
    rig.checks.close()


def test_reports_come_one_at_a_time() -> None:
    rig = Rig()
    inside = threading.Semaphore(1)
    overlaps = []
    gate = threading.Event()

    def report(key: Hashable, state: CheckState, outcome: Outcome) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(key)
        gate.wait(0.02)
        inside.release()
        rig.reports.put((key, state, outcome.passed))

    checks = CheckSchedule(rig.prober, report, rig.clock)
    checks.set_targets([target(number) for number in range(1, 11)])
    rig.clock.advance(1)
    checks.tick()
    checks.tick()  # more threads than one
    assert len({rig.next_report()[0] for _ in range(10)}) == 10
    assert overlaps == []
    checks.close()


def test_a_report_may_change_the_targets_and_one_that_fails_is_not_the_last() -> None:
    rig = Rig()

    def report(key: Hashable, state: CheckState, outcome: Outcome) -> None:
        rig.reports.put((key, state, outcome.passed))
        if key == 1:
            checks.set_targets([target(2)])
        raise RuntimeError("a report that fails")

    checks = rig.checks = CheckSchedule(rig.prober, report, rig.clock)
    checks.set_targets([target(1)])
    checks.tick()
    assert rig.next_report()[0] == 1
    for _ in range(2):
        rig.step()
        assert rig.next_report()[0] == 2
    checks.close()


def test_nothing_is_reported_after_close(rig: Rig) -> None:
    hanging = rig.hang(1)
    rig.checks.set_targets([target(1)])
    rig.checks.tick()
    rig.next_asked()
    rig.checks.close()
    hanging.set()
    wait_until(lambda: rig.checks.is_idle, "the end of the check")
    assert rig.reports.empty()


def test_close_ends_the_threads() -> None:
    before = set(threading.enumerate())
    rig = Rig()
    rig.checks.set_targets([target(number) for number in (1, 2, 3)])
    rig.clock.advance(1)
    rig.checks.tick()
    for _ in range(3):
        rig.next_report()
    assert set(threading.enumerate()) - before
    rig.checks.close()
    wait_until(lambda: not set(threading.enumerate()) - before, "the end of the threads")


def test_run_checks_until_it_is_stopped() -> None:
    """On the real clock: what is set while it runs is checked, again and again."""
    rig = Rig()
    checks = CheckSchedule(rig.prober, rig.report)
    stop = threading.Event()
    thread = threading.Thread(target=checks.run, args=(stop,), daemon=True)
    thread.start()
    checks.set_targets([target(1, RULES._replace(interval_s=0.02))])
    for _ in range(3):
        assert rig.next_report() == (1, UP, True)
    stop.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    checks.close()


def test_checks_that_find_no_thread_are_told_once_in_ten_seconds_and_made_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    rig.checks.set_targets([target(1)])
    for _ in range(95):
        rig.checks.tick()
        rig.clock.advance(0.1)
    assert caplog.text.count("no thread for one more check") == 1
    rig.clock.advance(1.0)
    rig.checks.tick()
    assert caplog.text.count("no thread for one more check") == 2
    monkeypatch.undo()
    rig.checks.tick()
    assert rig.next_report() == (1, UP, True)
