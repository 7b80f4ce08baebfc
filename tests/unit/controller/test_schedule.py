"""The schedule of checks on a clock that stands still."""
from __future__ import annotations

import pytest

from prefork_lb.controller.schedule import Target
from prefork_lb.controller.streak import CheckState
from tests.support.waiting import wait_until
from tests.unit.controller.scheduled import CHECKING, DOWN, RULES, UP, Rig, probe_of, target


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
