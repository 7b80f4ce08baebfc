"""The life of a pool's servers, on virtual time."""
from __future__ import annotations

import random

import pytest

from prefork_lb.errors import InvariantError, NotThere
from prefork_lb.scaling.fleet import FleetSettings
from prefork_lb.scaling.scaled_server import TRANSITIONS, ScaledEvent, ScaledServer, ScaledState
from prefork_lb.shared.events import EventKind
from tests.unit.scaling.staged import Stage


def refuse(address: str) -> None:
    raise NotThere(address)


def test_servers_are_started_until_there_are_enough() -> None:
    stage = Stage()
    stage.readiness.passes = False
    stage.run(1, wanted=2)
    assert (stage.states, stage.serving) == ("1 starting, 2 starting", 0)
    stage.readiness.passes = True
    stage.run()
    assert (stage.states, stage.serving) == ("1 serving, 2 serving", 2)
    assert stage.kinds() == [EventKind.STARTED, EventKind.STARTED]
    stage.run(100)
    assert stage.driver.starts == 2


def test_a_server_serves_only_when_its_check_has_passed_since_its_start() -> None:
    stage = Stage()
    stage.run(wanted=1)
    assert stage.serving == 0  # the check has not been made yet
    stage.run()
    assert stage.serving == 1


def test_the_server_with_the_highest_number_goes_when_fewer_are_wanted() -> None:
    stage = Stage()
    stage.run(1, wanted=3)
    stage.run(wanted=2)
    assert stage.states == "1 serving, 2 serving, 3 draining"
    stage.run(1)
    assert stage.states == "1 serving, 2 serving"
    assert EventKind.EXITED not in stage.kinds()


def test_one_that_does_not_serve_yet_goes_first() -> None:
    stage = Stage()
    stage.run(1, wanted=2)
    stage.driver.end(1)
    stage.readiness.passes = False
    stage.run(1)
    assert stage.states == "1 starting, 2 serving"
    stage.run(1, wanted=1)
    assert stage.states == "2 serving"


def test_a_server_is_asked_to_end_only_when_nothing_is_left_on_it() -> None:
    stage = Stage()
    stage.run(1, wanted=1)
    stage.pool.busy.update(stage.pool.servers)
    stage.run(100, wanted=0)
    assert (stage.states, stage.driver.asked_to_end) == ("1 draining", {})
    stage.pool.busy.clear()
    stage.run(1)
    assert stage.states == ""


def test_requests_that_do_not_end_are_not_waited_for_longer_than_the_timeout() -> None:
    stage = Stage(FleetSettings(drain_timeout_s=10))
    stage.run(1, wanted=1)
    stage.pool.busy.update(stage.pool.servers)
    stage.run(10, wanted=0)
    assert stage.states == "1 draining"
    stage.run(1)
    assert (stage.states, stage.pool.servers) == ("", {})


def test_one_that_does_not_end_when_asked_is_killed() -> None:
    stage = Stage(FleetSettings(stop_timeout_s=5))
    stage.driver.ends_when_asked = False
    stage.run(1, wanted=1)
    stage.run(5, wanted=0)
    assert (stage.states, stage.driver.asked_to_end) == ("1 stopping", {1: False})
    stage.run(1)
    assert stage.states == ""


def test_a_drained_server_is_had_back_rather_than_another_one_started() -> None:
    stage = Stage()
    stage.run(1, wanted=2)
    stage.pool.busy.update(stage.pool.servers)
    stage.run(1, wanted=1)
    assert stage.states == "1 serving, 2 draining"
    stage.run(1, wanted=2)
    assert (stage.states, stage.serving, stage.driver.starts) == ("1 serving, 2 serving", 2, 2)


def test_a_server_that_ends_by_itself_leaves_the_pool_and_is_started_again_at_once() -> None:
    stage = Stage()
    stage.run(1, wanted=2)
    stage.driver.end(1)
    stage.run()
    assert stage.serving == 1
    stage.run()
    assert (stage.serving, stage.driver.starts) == (2, 3)
    kind, address, text = stage.pool.events[-2]
    assert (kind, address) == (EventKind.EXITED, "127.0.0.1:9001")
    assert text == "has ended by itself: exited with code 1; another one is started"


def test_one_that_keeps_ending_is_started_after_longer_and_longer_waits(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.readiness.passes = False
    waits, last = [], stage.clock()
    for _ in range(7):
        starts = stage.driver.starts
        while stage.driver.starts == starts:
            stage.run(wanted=1)
        waits.append(round(stage.clock() - last))
        stage.run(1)  # less would be one failure
        last = stage.clock()
        stage.driver.end(1)
    assert waits == [0, 0, 1, 3, 7, 15, 60]
    assert stage.fleet.is_given_up
    assert stage.kinds().count(EventKind.GIVEN_UP) == 1
    assert "pool app: server 127.0.0.1:9006: it has not started: exited with code 1; 6 failures in a row: none is started for " \
           "60 s; its last output:\nthe last line" in caplog.text


def test_servers_that_end_together_are_one_failure() -> None:
    stage = Stage()
    for _ in range(3):
        stage.run(10, wanted=4)
        assert stage.serving == 4
        for n in list(stage.driver.running):
            stage.driver.end(n)
    stage.run(10)
    assert stage.serving == 4


def test_failures_are_forgotten_when_a_later_server_has_served_for_a_minute() -> None:
    stage = Stage()
    for _ in range(3):
        stage.run(5, wanted=1)
        stage.driver.end(1)
    stage.run(70)
    starts = stage.driver.starts
    stage.driver.end(1)
    stage.run()
    assert stage.driver.starts == starts + 1


def test_failures_are_not_forgotten_because_others_go_on() -> None:
    stage = Stage()
    stage.run(100, wanted=2)
    for _ in range(20):
        stage.run(10)
        if 2 in stage.driver.running:
            stage.driver.end(2)
    assert stage.fleet.is_given_up
    assert stage.serving == 1


def test_after_a_failure_one_is_started_at_a_time() -> None:
    stage = Stage()
    stage.readiness.passes = False
    stage.run(wanted=3)
    for n in (1, 2, 3):
        stage.driver.end(n)
    stage.run(20)
    assert stage.count(ScaledState.STARTING) == 1
    stage.readiness.passes = True
    stage.run(5)
    assert stage.serving == 3


def test_new_settings_forget_what_has_failed() -> None:
    stage = Stage()
    stage.driver.refusal = "all of its addresses are in use"
    stage.run(60, wanted=1)
    assert stage.fleet.is_given_up
    stage.driver.refusal = ""
    stage.run(20)
    assert stage.serving == 0
    stage.fleet.use(FleetSettings())
    stage.run(1)
    assert stage.serving == 1


def test_one_that_is_not_ready_in_time_is_ended_and_its_output_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(FleetSettings(start_timeout_s=20))
    stage.readiness.passes = False
    stage.run(20, wanted=1)
    assert stage.driver.starts == 1
    stage.run(1)
    assert stage.driver.starts == 2
    assert "it was not ready 20 s after its start: connection refused; another one is started; its last output:\nlines of 1" \
        in caplog.text


def test_many_are_not_started_all_at_once() -> None:
    stage = Stage()
    stage.readiness.passes = False
    stage.run(wanted=10)
    assert stage.driver.starts == 4
    stage.run(1)
    assert stage.driver.starts == 10


def test_a_drained_server_that_cannot_be_had_back_is_ended() -> None:
    stage = Stage()
    stage.run(1, wanted=1)
    stage.pool.busy.update(stage.pool.servers)
    stage.run(1, wanted=0)
    stage.pool.keep = refuse  # type: ignore[method-assign]
    stage.run(5, wanted=1)
    assert (stage.serving, stage.driver.starts) == (1, 2)


def test_an_address_may_become_known_later() -> None:
    stage = Stage()
    stage.driver.is_slow = True
    stage.run(10, wanted=1)
    assert stage.states == "1 starting"
    stage.driver.is_slow = False
    stage.run(1)
    assert stage.serving == 1


def test_a_server_that_cannot_join_the_pool_is_ended() -> None:
    stage = Stage()
    stage.pool.refusal = "room for 4 servers only"
    stage.run(1, wanted=1)
    assert stage.pool.events[0] == (
        EventKind.EXITED, "127.0.0.1:9001", "cannot join the pool: room for 4 servers only; another one is started")
    stage.pool.refusal = ""
    stage.run(30)
    assert stage.serving == 1


def test_the_memory_of_one_server_a_second_is_looked_at() -> None:
    stage = Stage(FleetSettings(max_memory_bytes=1 << 20))
    looks: list[int] = []
    stage.driver.memory = lambda n: looks.append(n)  # type: ignore[method-assign, assignment, func-returns-value]
    stage.run(1, wanted=3)
    looks.clear()
    stage.run(6)
    assert looks == [1, 2, 3, 1, 2, 3] or looks == [2, 3, 1, 2, 3, 1]


def test_another_controller_takes_up_what_is_there() -> None:
    stage = Stage()
    stage.run(1, wanted=3)
    stage.pool.busy.update(stage.pool.servers)
    stage.run(1, wanted=2)
    stage.readiness.passes = False
    stage.run(1, wanted=3)
    stage.run(1, wanted=4)
    stage.run(1, wanted=3)
    stage.run(1, wanted=2)
    before = stage.states
    stage.new_fleet()
    stage.run()
    assert stage.states == before == "1 serving, 2 serving, 3 draining"
    stage.pool.busy.clear()
    stage.run(5)
    assert (stage.states, stage.driver.starts) == ("1 serving, 2 serving", 4)


def test_another_controller_waits_for_those_that_were_starting() -> None:
    stage = Stage()
    stage.readiness.passes = False
    stage.run(1, wanted=2)
    stage.new_fleet()
    stage.run(10)
    stage.readiness.passes = True
    stage.run(1)
    assert (stage.serving, stage.driver.starts) == (2, 2)


@pytest.mark.parametrize("is_taken_up", [False, True])
def test_a_server_has_the_time_to_end_that_it_was_started_with(is_taken_up: bool) -> None:
    stage = Stage(FleetSettings(stop_timeout_s=20))
    stage.driver.ends_when_asked = False
    stage.run(1, wanted=1)
    stage.settings = FleetSettings(stop_timeout_s=5)
    if is_taken_up:
        stage.driver.running[1] = stage.driver.running[1]._replace(stop_timeout_s=20)
        stage.new_fleet()
    else:
        stage.fleet.use(stage.settings)
    stage.run(18, wanted=0)
    assert stage.driver.asked_to_end == {1: False}
    stage.run(5)
    assert stage.driver.running == {}


def test_a_server_that_ended_while_there_was_no_controller_leaves_the_pool() -> None:
    stage = Stage()
    stage.run(1, wanted=2)
    stage.driver.end(1)
    stage.driver.over.clear()
    stage.new_fleet()
    stage.run()
    assert stage.serving == 1
    stage.run(1)
    assert stage.serving == 2


def test_a_step_that_the_table_lacks_is_a_defect_and_changes_nothing() -> None:
    for state in ScaledState:
        for event in ScaledEvent:
            if (state, event) not in TRANSITIONS:
                member = ScaledServer(1, 0.0, state, 0.0, 30.0)
                with pytest.raises(InvariantError):
                    member.go_on(event, 1.0, "")
                assert member.state is state


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_there_are_in_the_end_as_many_as_are_wanted(seed: int) -> None:
    rng = random.Random(seed)
    stage = Stage(FleetSettings(
        start_timeout_s=10, drain_timeout_s=10, stop_timeout_s=5, warm_s=2, max_age_s=120, replace_after_s=20))
    for _ in range(300):
        stage.run(rng.choice((0.25, 0.5, 5)))
        running = {running.address for running in stage.driver.running.values()}
        assert {address for address, seen in stage.pool.servers.items() if not seen.is_leaving} <= running
        match rng.randrange(9):
            case 0:
                stage.wanted = rng.randrange(6)
            case 1:
                stage.driver.ends_when_asked = not stage.driver.ends_when_asked
            case 2 if stage.driver.running:
                stage.driver.end(rng.choice(list(stage.driver.running)))
            case 3:
                stage.readiness.passes = not stage.readiness.passes
            case 4:
                stage.new_fleet()
                stage.driver.over.clear()
            case 5 if stage.roll is None:
                stage.start_roll(rng.randrange(1, 4))
            case 6 if stage.fleet.roll_outcome:
                stage.roll = None
            case 7:
                stage.pool.busy = {address for address in stage.pool.servers if rng.random() < 0.3}
            case 8:
                stage.pool.down = {address for address in stage.pool.servers if rng.random() < 0.3}
    stage.driver.ends_when_asked = stage.readiness.passes = True
    stage.pool.busy.clear()
    stage.pool.down.clear()
    stage.fleet.use(FleetSettings())
    stage.run(300, wanted=3)
    assert stage.roll is None or stage.fleet.roll_outcome
    assert [member.state for member in stage.fleet.servers] == [ScaledState.SERVING] * 3
    assert stage.serving == len(stage.driver.running) == 3
