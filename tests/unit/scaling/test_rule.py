"""The rule does what Knative publishes: its own tests (pkg/autoscaler/scaling/autoscaler_test.go), with its numbers."""
from __future__ import annotations

import math
from dataclasses import replace

import pytest

from prefork_lb.scaling.rule import RuleSettings, ScalingRule, Wish

SETTINGS = RuleSettings(most=10_000, target=10, max_up=10, max_down=10)


def ask(rule: ScalingRule, now: float, stable: float, panic: float, running: int) -> int:
    """The count that the rule gives for two averages of requests in flight."""
    target = rule.settings.target
    return rule.wish(now, Wish(math.ceil(stable / target), ""), Wish(math.ceil(panic / target), ""), running).servers


def new_rule(running: int = 0, **settings: float) -> ScalingRule:
    return ScalingRule(replace(SETTINGS, **settings), 0.0, running)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stable", "panic", "running", "wanted"), [
    (50, 50, 1, 5), (50, 50, 5, 5), (50, 10, 1, 5), (0, 0, 1, 0), (1, 0, 1, 1), (0, 0, 0, 0), (100, 100, 8, 10), (50, 50, 8, 5),
    (1000, 1001, 1, 10),  # only ten times as many at a time
    (1000, 1001, 10, 100),
    (1000, 888, 0, 10),  # ten times one, when there is none
    (1, 1, 100, 10),  # only down to a tenth at a time
    (1, 1, 10, 1),
    (50, 100, 1, 10),  # in panic: the average of the panic window, when that is larger
    (50, 30, 1, 5)])
def test_what_the_averages_ask_for(stable: float, panic: float, running: int, wanted: int) -> None:
    assert ask(new_rule(), 1, stable, panic, running) == wanted


def test_a_small_rate_allows_one_more() -> None:
    assert ask(new_rule(target=1, max_up=1.1), 1, 3, 3.1, 2) == 3


def test_a_small_rate_downwards() -> None:
    assert ask(new_rule(max_down=1.1), 1, 1, 1, 100) == 90


def test_panic_begins_at_twice_the_servers() -> None:
    rule = new_rule(target=1)
    ask(rule, 1, 10, 19, 10)
    assert not rule.is_in_panic
    ask(rule, 2, 10, 20, 10)
    assert rule.is_in_panic


def test_in_panic_no_server_is_ended_until_a_stable_window_has_passed() -> None:
    rule = new_rule()
    assert ask(rule, 0, 100, 100, 1) == 10
    assert ask(rule, 1, 100, 1000, 10) == 100
    assert ask(rule, 31, 1, 1, 10) == 100
    assert ask(rule, 61, 1, 1, 10) == 100
    assert ask(rule, 62, 1, 1, 10) == 1


def test_panic_ends_after_a_slow_increase() -> None:
    rule = new_rule(target=1)
    assert ask(rule, 0, 11, 25, 10) == 25
    assert ask(rule, 30, 30, 41, 40) == 41  # half of the window has passed, and one server was added a second
    assert ask(rule, 62, 50, 56, 55) == 50
    assert not rule.is_in_panic


def test_panic_goes_on_while_the_load_doubles() -> None:
    rule = new_rule(target=1)
    assert ask(rule, 0, 11, 25, 10) == 25
    assert ask(rule, 30, 30, 80, 40) == 80
    ask(rule, 62, 1, 1, 80)
    assert rule.is_in_panic
    ask(rule, 91, 1, 1, 80)
    assert not rule.is_in_panic


def test_a_load_that_grows_sixfold_again_and_again_is_followed() -> None:
    rule = new_rule(target=1)
    assert [ask(rule, second, load, load, load // 6) for second, load in enumerate([6, 36, 216, 1296])] == [6, 36, 216, 1296]
    assert ask(rule, 4, 1296, 1296, 1296) == 1296


def test_in_panic_the_stable_average_counts_when_it_is_larger() -> None:
    rule = new_rule(running=5, target=1)
    assert ask(rule, 5, 50, 30, 5) == 50
    assert ask(new_rule(running=5, target=1), 5, 20, 30, 5) == 30


def test_what_runs_at_the_start_is_kept_for_a_stable_window() -> None:
    rule = new_rule(running=4)
    assert [ask(rule, second, 0, 0, 4) for second in (1, 30, 60)] == [4, 4, 4]
    assert ask(rule, 61, 0, 0, 4) == 0


def test_one_server_at_the_start_is_no_reason_for_panic() -> None:
    assert not new_rule(running=1).is_in_panic


def test_fewer_servers_must_have_been_enough_for_the_delay() -> None:
    rule = new_rule(down_delay_s=300)
    samples = [(2, 40, 4), (300, 0, 4), (302, 0, 0), (540, 40, 4), (600, 30, 4), (660, 0, 4), (840, 0, 3), (900, 0, 0)]
    for now, average, wanted in samples:
        assert ask(rule, now, average, average, 4) == wanted, now


def test_another_target_applies_at_once() -> None:
    rule = new_rule()
    assert ask(rule, 0, 100, 101, 1) == 10
    rule.settings = replace(rule.settings, target=1)
    assert ask(rule, 1, 100, 101, 10) == 100


@pytest.mark.parametrize(("stable", "panic", "running", "why"), [
    (Wish(4, "a"), Wish(3, "b"), 4, "a"),
    (Wish(4, "a"), Wish(8, "b"), 4, "b"),
    (Wish(400, "a"), Wish(3, "b"), 4, "a; at most 40 at a time"),
    (Wish(0, "a"), Wish(0, "b"), 40, "a; at least 4 for now")])
def test_the_reason_is_that_of_the_wish_which_applies(stable: Wish, panic: Wish, running: int, why: str) -> None:
    assert new_rule().wish(1, stable, panic, running).why == why


def test_no_more_are_kept_than_there_may_be() -> None:
    rule = new_rule(most=6)
    assert ask(rule, 1, 100, 100, 1) == 10, "the caller bounds it"
    assert ask(rule, 2, 0, 0, 6) == 6


def test_the_reason_for_more_servers_than_are_asked_for() -> None:
    wish = new_rule(running=5).wish(20, Wish(2, "a"), Wish(2, "b"), 5)
    assert wish == (5, "a; keeps 5 for 40 s more, since so many were needed")
