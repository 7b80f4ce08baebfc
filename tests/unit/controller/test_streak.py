"""What a server's checks in a row make of it."""
from __future__ import annotations

import pytest

from prefork_lb.controller.streak import CheckState, Streak

UP, DOWN, CHECKING = CheckState.UP, CheckState.DOWN, CheckState.CHECKING


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
