"""A fleet replaces servers: those that are worn, and those whose check has failed for long."""
from __future__ import annotations

import pytest

from prefork_lb.scaling.fleet import FleetSettings
from prefork_lb.scaling.scaled_server import ScaledState
from tests.unit.scaling.staged import Stage


@pytest.mark.parametrize(("settings", "worn"), [
    (FleetSettings(max_age_s=50), "it is older than 50 s"),
    (FleetSettings(max_requests=100), "it has had 100 requests"),
    (FleetSettings(max_memory_bytes=100 << 20), "it uses 101 MiB of memory"),
])
def test_a_worn_server_is_replaced_by_one_that_serves_before(settings: FleetSettings, worn: str) -> None:
    stage = Stage(settings)
    stage.run(1, wanted=2)
    stage.readiness.passes = False
    first = stage.fleet.servers[0].address
    stage.pool.servers[first] = stage.pool.servers[first]._replace(requests=100)
    stage.driver.memories[1] = 101 << 20
    stage.run(50)
    assert stage.states == "1 serving, 2 serving, 3 starting"
    assert stage.fleet.servers[0].worn == worn
    stage.driver.memories.clear()
    stage.readiness.passes = True
    stage.run(1)
    assert stage.least_serving == 2
    assert first not in stage.pool.servers


def test_a_worn_server_stays_while_its_successor_does_not_come_up() -> None:
    stage = Stage(FleetSettings(max_age_s=50))
    stage.run(1, wanted=1)
    stage.driver.refusal = "all of its addresses are in use"
    stage.run(100)
    assert stage.least_serving == 1


def test_a_successor_has_its_slow_start_behind_it_before_the_worn_server_goes() -> None:
    stage = Stage(FleetSettings(max_age_s=50, warm_s=20))
    stage.run(60, wanted=1)
    assert stage.serving == 2
    stage.run(20)
    assert (stage.serving, stage.states) == (1, "2 serving")


def test_a_server_whose_check_has_failed_for_long_is_replaced() -> None:
    stage = Stage(FleetSettings(replace_after_s=60))
    stage.run(1, wanted=2)
    dead = stage.fleet.servers[0].address
    stage.pool.down.add(dead)
    stage.run(60)
    assert (stage.states, stage.driver.starts) == ("1 serving, 2 serving", 2)
    stage.run(1.5)
    assert (stage.states, stage.driver.starts, dead in stage.pool.servers) == ("2 serving, 3 serving", 3, False)
    stage.run(200)
    assert stage.driver.starts == 3


def test_all_are_replaced_when_the_checks_of_all_fail() -> None:
    stage = Stage(FleetSettings(replace_after_s=60))
    stage.run(1, wanted=3)
    stage.pool.down.update(stage.pool.servers)
    stage.run(70)
    assert (stage.driver.starts, stage.serving, stage.pool.servers.keys() & stage.pool.down) == (6, 3, set())


def test_they_stay_when_what_is_wrong_is_wrong_with_new_ones_too() -> None:
    stage = Stage(FleetSettings(replace_after_s=60))
    stage.run(1, wanted=3)
    before = set(stage.pool.servers)
    stage.pool.down.update(before)
    stage.readiness.passes = False
    stage.run(600)
    assert before == set(stage.pool.servers)
    stage.pool.down.clear()
    stage.readiness.passes = True
    stage.run(100)
    assert before == set(stage.pool.servers)
    assert stage.states == "1 serving, 2 serving, 3 serving"


def test_a_lost_server_is_not_had_back_when_more_are_wanted() -> None:
    stage = Stage(FleetSettings(replace_after_s=60))
    stage.run(1, wanted=1)
    dead = next(iter(stage.pool.servers))
    stage.pool.down.add(dead)
    stage.pool.busy.add(dead)  # requests that hang there
    stage.run(62)
    assert stage.states == "1 draining, 2 serving"
    stage.run(2, wanted=2)
    assert stage.states == "1 draining, 2 serving, 3 serving"


def test_a_roll_lets_a_lost_server_go_first() -> None:
    stage = Stage(FleetSettings(replace_after_s=60, warm_s=10))
    stage.run(20, wanted=2)
    stage.pool.down.add(stage.fleet.servers[1].address)
    stage.readiness.passes = False
    stage.run(61)
    stage.start_roll()
    stage.readiness.passes = True
    while not (going := [member.n for member in stage.fleet.servers if member.state is ScaledState.DRAINING]):
        stage.run()
    assert going == [2]
