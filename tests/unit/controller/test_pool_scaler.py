"""From what a pool has to do in shared memory to its servers, on virtual time."""
from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from prefork_lb.controller.scaled_load import CpuRate, ScaledLoad
from prefork_lb.scaling.driver import StartFailed
from prefork_lb.shared import table_lookup
from prefork_lb.shared.events import EventKind
from prefork_lb.shared.scaling_state import Mode, Roll, Scaling, ask_for_roll, asked_roll, asked_servers, scaling_of
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import AddedBy
from prefork_lb.shared.text import read_text
from tests.unit.controller.scaled import Scene

NewScene = Callable[..., Scene]


@pytest.fixture
def new_scene(segment: Segment) -> NewScene:
    return lambda **scaling: Scene(segment, **scaling)


def test_a_pool_gets_the_servers_that_its_load_needs_and_says_why(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(5)
    assert (scene.servers, scene.said) == (1, Scaling(
        Mode.AUTO, 6, 1, 1, 0, 0, "average 0.0 in flight, target 4: wants 0, has 1; at least 1"))
    scene.run(20, in_flight=14)
    assert (scene.servers, scene.said.wanted) == (4, 4)
    scene.run(200)
    assert (scene.servers, len(scene.driver.running), scene.said.why) == (
        1, 1, "average 0.0 in flight, target 4: wants 0, has 1; at least 1")


def test_each_change_is_an_event_with_the_reason(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(5)
    scene.run(2, in_flight=40)
    first, second = scene.told(EventKind.SCALED)[:2]
    assert first == "0 -> 1: average 0.0 in flight, target 4: wants 0, has 0; at least 1"
    assert second.startswith("1 -> ") and " in flight, target 4: wants " in second


def test_from_none_the_first_request_that_waits_starts_one_at_once(new_scene: NewScene) -> None:
    scene = new_scene(min=0, idle=60)
    scene.run(30)
    assert (scene.servers, scene.said.wanted) == (0, 0)
    scene.run(0.25, waiting=1)
    assert scene.driver.starts == 1
    scene.run(0.5)
    assert scene.servers == 1
    scene.run(59)
    assert scene.servers == 1
    scene.run(30)
    assert (scene.servers, scene.driver.running, scene.said.wanted) == (0, {}, 0)


def test_an_operators_number_holds_whatever_the_load(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(5)
    scene.steering.scale("app", 3, "ann")
    scene.run(2)
    assert (scene.servers, scene.said.mode, scene.said.why) == (3, Mode.FIXED, "an operator has set it")
    scene.run(60, in_flight=100)
    assert scene.servers == 3
    scene.steering.scale("app", None, "ann")
    scene.run(2, in_flight=100)
    assert (scene.servers, scene.said.mode) == (6, Mode.AUTO)


def test_a_reload_that_lowers_the_most_bounds_an_operators_number(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(1)
    scene.steering.scale("app", 5, "ann")
    scene.run(2)
    scene.use(max=2)
    scene.run(2)
    assert (scene.servers, scene.said.wanted, scene.said.most) == (2, 2, 2)


def test_times_of_the_week_set_the_least_number(new_scene: NewScene) -> None:
    scene = new_scene(schedules=[{"at": "08:00", "min": 3}, {"at": "20:00", "min": 1}])
    scene.wall = datetime(2026, 11, 30, 7, 59).timestamp()
    scene.run(2)
    assert scene.servers == 1
    scene.wall += 120
    scene.run(2)
    assert (scene.servers, scene.said.why) == (3, "average 0.0 in flight, target 4: wants 0, has 3; at least 3")


def test_a_controller_that_follows_another_keeps_what_there_is(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(10, in_flight=20)
    running = dict(scene.driver.running)
    assert len(running) == 5
    scene.new_scaler()
    scene.run(50, in_flight=0)
    assert scene.driver.running == running, "for a stable window"
    scene.run(60)
    assert len(scene.driver.running) == 1


def test_other_settings_leave_the_servers_that_run(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(20, in_flight=7)
    running = dict(scene.driver.running)
    scene.use(target=4, max=8)
    scene.run(10, in_flight=7)
    assert scene.driver.running == running and len(running) == 2
    scene.use(target=2)
    scene.run(2, in_flight=7)
    assert scene.driver.running.items() > running.items() and len(scene.driver.running) == 4


def test_servers_of_a_pool_that_ceases_to_scale_end(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(20, in_flight=20)
    scene.steering.scale("app", 5, "ann")
    scene.scaler.retire()
    assert not scene.scaler.is_over
    scene.run(5, in_flight=20)
    assert (scene.scaler.is_over, scene.driver.running) == (True, {})
    assert (scaling_of(scene.segment, scene.number), asked_servers(scene.segment, scene.number)) == (None, None)


def test_a_roll_is_done_and_told(new_scene: NewScene) -> None:
    scene = new_scene()
    scene.run(5)
    before = scene.clock()
    with scene.ledger.locked():
        ask_for_roll(scene.segment, scene.number, Roll(int(before * 1000) + 1, 1))
    scene.run(5)
    assert all(running.since > before for running in scene.driver.running.values())
    assert (asked_roll(scene.segment, scene.number), scene.told(EventKind.ROLLED)) == (None, ["1 new server"])


def test_what_is_given_up_is_said(new_scene: NewScene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = new_scene()
    monkeypatch.setattr(scene.driver, "start", lambda n: (_ for _ in ()).throw(StartFailed("no such program")))
    scene.run(300)
    assert scene.said.why.endswith("; no server is started for a while, too many have failed")
    assert scene.told(EventKind.GIVEN_UP)


def test_the_load_is_that_of_servers_that_scaling_has_started(new_scene: NewScene) -> None:
    scene = new_scene()
    load = ScaledLoad(scene.segment, scene.ledger, "app")
    for address, source in (("10.0.0.1:80", AddedBy.OPERATOR), ("10.0.0.2:80", AddedBy.SCALING),
                            ("10.0.0.3:80", AddedBy.SCALING)):
        scene.steering.add_server("app", address, who="me", source=source)
    scene.load(9, waiting=2)
    assert load.read(scene.number, 0, dict).in_flight == 3 + 3 + 2
    scene.steering.remove_server("app", "10.0.0.3:80", who="me", source=AddedBy.SCALING)
    assert load.read(scene.number, 1, dict).in_flight == 3 + 3 + 2, "its requests go on"


def test_a_look_goes_through_the_names_of_pools_once(new_scene: NewScene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = new_scene()
    scene.run(5)
    read: list[str] = []
    monkeypatch.setattr(table_lookup, "read_text",
                        lambda *place: read.append(read_text(*place)) or read[-1])  # type: ignore[func-returns-value]
    scene.scaler.look()
    assert read == ["web", "app"]


def test_cores_are_cpu_time_by_time() -> None:
    rate = CpuRate()
    assert rate.cores(0.0, lambda: {1: 10.0, 2: 20.0}) == 0
    assert rate.cores(0.5, lambda: {1: 10.5, 2: 20.1}) == 0, "too early"
    assert rate.cores(1.0, lambda: {1: 11.0, 2: 20.5, 3: 7.0}) == pytest.approx(1.5)
    assert rate.cores(3.0, lambda: {1: 11.0, 3: 8.0}) == pytest.approx(0.5)
