"""A roll, on virtual time: all servers are replaced by new ones, or the old ones serve again."""
from __future__ import annotations

import pytest

from prefork_lb.scaling.fleet import FleetSettings
from prefork_lb.scaling.scaled_server import ScaledState
from tests.unit.scaling.staged import Stage

SETTINGS = FleetSettings(start_timeout_s=30, warm_s=5)


@pytest.fixture
def stage() -> Stage:
    stage = Stage(SETTINGS)
    stage.run(10, wanted=4)
    return stage


def addresses(stage: Stage) -> set[str]:
    return set(stage.pool.servers)


def run_until_over(stage: Stage, seconds: float = 300) -> None:
    least = 1000
    for _ in range(round(seconds)):
        stage.run(1)
        least = min(least, stage.least_serving)
        if stage.fleet.roll_outcome:
            break
    stage.least_serving = least


def test_every_server_is_replaced_and_none_goes_before_a_new_one_is_warm(stage: Stage) -> None:
    before = addresses(stage)
    stage.start_roll()
    run_until_over(stage)
    assert stage.fleet.roll_outcome == (True, "4 new servers")
    stage.run(1)
    assert len(addresses(stage)) == stage.serving == 4
    assert not before & addresses(stage)
    assert stage.least_serving == 4
    assert (stage.count(ScaledState.SERVING), len(stage.fleet.servers)) == (4, 4)


@pytest.mark.parametrize("surge", [1, 2, 4])
def test_no_more_new_servers_come_up_at_a_time_than_it_may_have(stage: Stage, surge: int) -> None:
    stage.start_roll(surge)
    most = 0
    while not stage.fleet.roll_outcome:
        stage.run()
        most = max(most, stage.count(ScaledState.STARTING, ScaledState.SERVING))
    assert most == 4 + surge


def test_one_that_was_starting_when_the_roll_began_counts_as_old(stage: Stage) -> None:
    stage.readiness.passes = False
    stage.run(1, wanted=5)
    stage.start_roll()
    stage.run(1)
    stage.readiness.passes = True
    run_until_over(stage)
    assert stage.fleet.roll_outcome == (True, "5 new servers")


@pytest.mark.parametrize("how", ["ends", "is late", "cannot be started", "ends when it serves", "is not fit"])
def test_it_goes_back_when_a_new_server_does_not_come_up(stage: Stage, how: str) -> None:
    before = addresses(stage)
    stage.start_roll()
    stage.run(15)
    assert len(before & addresses(stage)) < 4  # it was well until now
    if how == "is not fit":
        stage.pool.unfit = {f"127.0.0.1:{9000 + n}" for n in range(5, 30)}
    stage.readiness.passes = how in ("ends when it serves", "is not fit")
    if how == "cannot be started":
        stage.driver.refusal = "all of its addresses are in use"
    broken = stage.driver.starts
    while not stage.fleet.roll_outcome:
        stage.run()
        assert stage.serving >= 4
        newest = stage.fleet.servers[-1]
        if how == "ends" and newest.state is ScaledState.STARTING and stage.driver.starts > broken:
            stage.driver.end(newest.n)
        if how == "ends when it serves" and newest.state is ScaledState.SERVING and stage.driver.starts > broken:
            stage.driver.end(newest.n)
            how = "has ended"
    assert not stage.fleet.roll_outcome.is_done
    assert stage.fleet.roll_outcome.text.startswith("gone back: ")
    stage.roll = None
    stage.run(30)
    assert addresses(stage) == before
    assert len(stage.fleet.servers) == 4


@pytest.mark.parametrize("how", ["its check fails", "an operator has drained it"])
@pytest.mark.parametrize("at_s", [1, 14])
def test_it_goes_back_without_an_old_server_that_is_not_fit_any_more(stage: Stage, how: str, at_s: int) -> None:
    """It is waited for no longer than one that starts may take, and one that takes requests stays in its place until then."""
    old = addresses(stage)
    stage.start_roll()
    stage.run(at_s)
    dead = sorted(old)[0 if at_s > 10 else -1]
    stage.pool.unfit.add(dead)
    (stage.pool.down if how == "its check fails" else stage.pool.kept_out).add(dead)
    stage.readiness.passes = False
    stage.run(SETTINGS.start_timeout_s)
    run_until_over(stage, SETTINGS.start_timeout_s + SETTINGS.warm_s + 5)
    assert stage.fleet.roll_outcome is not None and stage.fleet.roll_outcome.text.startswith("gone back: ")
    stage.roll = None
    stage.run(5)
    assert addresses(stage) == old


def test_what_fails_in_a_roll_is_told_as_a_failure_of_the_roll(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.start_roll()
    stage.run()
    stage.driver.end(5)
    stage.run(30)
    assert "server 127.0.0.1:9005: it has not started: exited with code 1; the roll goes back" in caplog.text
    assert stage.fleet.roll_outcome == (False, "gone back: a new server has not started: exited with code 1")


def test_old_servers_run_until_the_roll_is_over(stage: Stage) -> None:
    old = set(stage.driver.running)
    stage.start_roll()
    while not stage.fleet.roll_outcome:
        assert old <= set(stage.driver.running)
        stage.run()
    stage.run(1)
    assert not old & set(stage.driver.running)


def test_requests_that_go_on_do_not_hold_up_the_roll(stage: Stage) -> None:
    stage.pool.busy.update(stage.pool.servers)
    stage.start_roll()
    run_until_over(stage)
    assert stage.fleet.roll_outcome == (True, "4 new servers")
    assert stage.count(ScaledState.DRAINING) == 4
    stage.pool.busy.clear()
    stage.run(1)
    assert len(stage.fleet.servers) == 4


def test_fewer_or_more_may_be_wanted_meanwhile(stage: Stage) -> None:
    stage.start_roll()
    stage.run(8)
    stage.run(2, wanted=2)
    assert stage.least_serving >= 2
    stage.run(2, wanted=6)
    run_until_over(stage)
    assert stage.fleet.roll_outcome == (True, "6 new servers")


@pytest.mark.parametrize("wanted", [3, 6])
def test_it_goes_back_also_to_another_number(stage: Stage, wanted: int) -> None:
    stage.start_roll()
    stage.run(8)
    stage.readiness.passes = False
    stage.run(6, wanted=wanted)
    stage.driver.end(next(member.n for member in stage.fleet.servers if member.state is ScaledState.STARTING))
    run_until_over(stage)
    assert stage.least_serving >= min(wanted, 4)
    assert stage.fleet.roll_outcome == (False, "gone back: a new server has not started: exited with code 1")


def test_it_is_over_at_once_where_nothing_runs() -> None:
    stage = Stage(SETTINGS)
    stage.start_roll()
    stage.run(1, wanted=0)
    assert stage.fleet.roll_outcome == (True, "0 new servers")


def test_another_controller_goes_on_with_it(stage: Stage) -> None:
    before = addresses(stage)
    stage.start_roll()
    least = 1000
    for _ in range(100):
        stage.run(3)
        least = min(least, stage.least_serving)
        if stage.fleet.roll_outcome:
            break
        stage.new_fleet()
    assert stage.fleet.roll_outcome == (True, "4 new servers")
    assert least >= 4
    assert not before & addresses(stage)
    stage.run(1)
    assert len(stage.driver.running) == 4


def test_another_roll_may_follow(stage: Stage) -> None:
    stage.start_roll()
    run_until_over(stage)
    first = addresses(stage)
    stage.start_roll()
    run_until_over(stage)
    assert stage.fleet.roll_outcome == (True, "4 new servers")
    assert not first & addresses(stage)


def test_a_roll_is_tried_though_servers_were_given_up_before() -> None:
    stage = Stage(SETTINGS)
    stage.driver.refusal = "no"
    stage.run(60, wanted=1)
    assert stage.fleet.is_given_up
    stage.driver.refusal = ""
    stage.start_roll()
    run_until_over(stage, 30)
    assert stage.fleet.roll_outcome == (True, "1 new server")
