"""Checks that run beside each other: servers that hang, reports one at a time, the end."""
from __future__ import annotations

import threading
from collections.abc import Hashable

import pytest

from prefork_lb.controller.probe import CheckOutcome
from prefork_lb.controller.schedule import CheckSchedule
from prefork_lb.controller.streak import CheckState
from tests.support.waiting import wait_until
from tests.unit.controller.scheduled import DEADLINE_S, RULES, UP, Rig, target


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

    def report(key: Hashable, state: CheckState, outcome: CheckOutcome) -> None:
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

    def report(key: Hashable, state: CheckState, outcome: CheckOutcome) -> None:
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
