"""Which pools scale, and how they take another configuration over."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NoReturn

import pytest

from prefork_lb.config.model import Config
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.controller import pool_scaling, scaling_duty
from prefork_lb.controller.scaled_drivers import ConfiguredDriver, make_driver
from prefork_lb.controller.scaling_duty import ScalingDuty
from prefork_lb.scaling.driver import Running
from prefork_lb.scaling.drivers.command import CommandDriver
from prefork_lb.scaling.drivers.process import ProcessDriver
from prefork_lb.scaling.drivers.systemd import SystemdDriver
from prefork_lb.scaling.keepers import Found
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.scaling_state import Mode, Scaling, scaling_of, write_scaling
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import AddedBy, PoolEntry, register
from prefork_lb.shared.view import view
from tests.unit.controller.scaled import config_with
from tests.unit.scaling.staged import StagedDriver, StagedReadiness

ADDRESS, APP = "127.0.0.1:9001", 1  # the number of the pool app


class Driver(StagedDriver):
    """One that notes what it is told, and says that a server runs that a test has laid down."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.used: list[ScalingConfig] = []
        self.is_asked_to_close = self.fails = self.closes_badly = False

    def adopt(self) -> dict[int, Running]:
        if self.fails:
            raise OSError("no systemd")
        return super().adopt()

    def close(self) -> None:
        self.is_asked_to_close = True
        if self.closes_badly:
            raise OSError("no systemd")


class Drivers:
    """All that were made, by pool."""

    def __init__(self) -> None:
        self.made: list[Driver] = []
        self.beats: list[tuple[int, int]] = []  # at each sign of life: the drivers that have started a server, or were closed
        self.left: dict[int, Running] = {}  # that a driver of another controller has started
        self.fails_for = ""

    def make(self, pool: str, scaling: ScalingConfig, config: Config) -> ConfiguredDriver:
        if pool == self.fails_for:
            raise OSError("no room")
        driver = Driver(pool)
        driver.running.update(self.left)
        self.made.append(driver)
        return ConfiguredDriver(driver, driver.used.append)

    def note_beat(self) -> None:
        self.beats.append((sum(driver.starts > 0 for driver in self.made), sum(driver.is_asked_to_close for driver in self.made)))

    def of(self, pool: str) -> list[Driver]:
        return [driver for driver in self.made if driver.pool == pool]


def left(segment: Segment) -> Steering:
    """The pool app as another controller has left it, with a server."""
    ledger = Ledger(segment)
    steering = Steering(segment, ledger, States(segment))
    steering.add_server("app", ADDRESS, who="scaling", source=AddedBy.SCALING)
    with ledger.locked():
        write_scaling(segment, APP, Scaling(Mode.AUTO, 6, 1, 1, 0, 0, ""))
    return steering


@pytest.fixture
def drivers() -> Drivers:
    return Drivers()


class Checks(StagedReadiness):
    """Checks that never pass: servers stay in their start, and none leaves its pool."""

    def __init__(self, pool: str, config: Config) -> None:
        super().__init__()
        self.passes = False

    def use(self, config: Config) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def duty(segment: Segment, drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScalingDuty]:
    monkeypatch.setattr(pool_scaling, "StartChecks", Checks)
    ledger = Ledger(segment)
    register(segment, ledger, [PoolEntry(name, [], may_be_empty=True) for name in ("web", "app", "other")])
    duty = ScalingDuty(segment, ledger, States(segment), drivers.note_beat, make=drivers.make)
    yield duty
    duty.close(has_ended=False)


def test_pools_that_scale_are_scaled_and_others_are_not(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.use(config_with(web=None, app={}, other={"min": 2}))
    duty.look()
    assert {driver.pool: driver.starts for driver in drivers.made} == {"app": 1, "other": 2}


def test_without_a_pool_that_scales_nothing_is_done(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.look()
    duty.use(config_with(web=None))
    duty.look()
    assert drivers.made == []


def test_a_pool_that_fails_stops_no_other(duty: ScalingDuty, drivers: Drivers, caplog: pytest.LogCaptureFixture) -> None:
    duty.use(config_with(app={}, other={}))
    drivers.of("app")[0].fails = True
    duty.look()
    assert drivers.of("other")[0].starts == 1
    assert "the controller cannot scale the pool app" in caplog.text
    drivers.of("app")[0].fails = False
    with caplog.at_level(logging.WARNING):
        duty.look()
    assert drivers.of("app")[0].starts == 1
    assert "the controller can scale the pool app again" in caplog.text


def test_a_reload_leaves_servers_and_tells_their_driver(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.use(config_with(app={}))
    duty.look()
    after = config_with(app={"max": 9})
    duty.use(after)
    duty.look()
    (driver,) = drivers.of("app")
    assert driver.starts == 1 and driver.used == [after.pools["app"].scaling]


def test_a_pool_that_ceases_to_scale_ends_its_servers_and_may_scale_again(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.use(config_with(app={}))
    duty.look()
    duty.use(config_with(app=None))
    duty.look()
    duty.look()
    assert drivers.of("app")[0].running == {}
    duty.use(config_with(app={}))
    duty.look()
    assert [driver.starts for driver in drivers.of("app")] == [1, 1]


def test_a_pool_that_scales_again_before_its_servers_have_ended_keeps_its_driver(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.use(config_with(app={}))
    duty.look()
    drivers.of("app")[0].ends_when_asked = False
    duty.use(config_with(app=None))
    duty.look()
    duty.use(config_with(app={}))
    duty.look()
    assert [driver.starts for driver in drivers.of("app")] == [2], "the other one was asked to end"


def test_servers_of_a_pool_that_ceased_to_scale_without_a_controller_are_drained_and_end(
        segment: Segment, duty: ScalingDuty, drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_duty, "keepers", lambda name: [Found(7, 7, "app", 1, ADDRESS, 3, 30.0)])
    drivers.left = {1: Running(ADDRESS, 1.0)}
    steering = left(segment)
    duty.use(config_with(app=None))
    duty.look()
    duty.look()
    assert [server.leaving for server in view(segment).servers] == [True]
    (driver,) = drivers.of("app")
    assert 1 in driver.running, "until nothing is left on it"
    steering.remove_server("app", ADDRESS, who="leaving", source=AddedBy.SCALING)
    duty.look()
    assert driver.running == {}


def test_servers_that_cannot_be_taken_up_at_once_are_not_forgotten(
        segment: Segment, duty: ScalingDuty, drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_duty, "keepers", lambda name: [Found(7, 7, "app", 1, ADDRESS, 3, 30.0)])
    drivers.left = {1: Running(ADDRESS, 1.0)}
    left(segment)
    duty.use(config_with(app=None))
    (driver,) = drivers.of("app")
    driver.fails = True
    duty.look()
    driver.fails = False
    duty.look()
    duty.look()
    assert [server.leaving for server in view(segment).servers] == [True]


def test_servers_that_no_driver_knows_leave_a_pool_that_scales_no_more(
        segment: Segment, duty: ScalingDuty, drivers: Drivers) -> None:
    left(segment)
    duty.use(config_with(app=None))
    duty.look()
    assert (list(view(segment).servers), scaling_of(segment, APP)) == ([], None)
    duty.use(config_with(app={}))
    duty.look()
    assert [driver.starts for driver in drivers.of("app")] == [0, 1]


def test_processes_end_before_another_driver_that_the_controller_finds_at_its_start(
        duty: ScalingDuty, drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_duty, "keepers", lambda name: [Found(7, 7, "app", 1, ADDRESS, 3, 30.0)])
    drivers.left = {1: Running(ADDRESS, 1.0)}
    duty.use(config_with(app={"driver": "command"}))
    assert len(drivers.of("app")) == 1
    duty.look()
    drivers.left = {}
    duty.look()
    duty.look()
    assert [(driver.starts, len(driver.running)) for driver in drivers.of("app")] == [(0, 0), (1, 1)]


def test_with_another_driver_the_servers_of_the_one_before_end_first(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.use(config_with(app={}))
    duty.look()
    drivers.of("app")[0].ends_when_asked = False
    duty.use(config_with(app={"driver": "command"}))
    duty.look()
    assert len(drivers.of("app")) == 1
    for n in list(drivers.of("app")[0].running):
        drivers.of("app")[0].end(n)
    duty.look()
    duty.look()
    assert [driver.starts for driver in drivers.of("app")] == [1, 1]


def test_a_scaler_that_cannot_be_made_is_made_at_a_later_look(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.use(config_with(app={}))
    duty.look()
    drivers.fails_for = "app"
    duty.use(config_with(app={"driver": "command"}))  # the servers of the other driver end first
    duty.look()
    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            duty.look()
    drivers.fails_for = ""
    duty.look()
    duty.look()
    assert [driver.starts for driver in drivers.of("app")] == [1, 1]


def test_a_scaler_that_cannot_be_made_stops_no_other(duty: ScalingDuty, drivers: Drivers) -> None:
    drivers.fails_for = "app"
    with pytest.raises(OSError, match="no room"):
        duty.use(config_with(app={}, other={}))
    with pytest.raises(OSError, match="no room"):
        duty.look()
    assert drivers.of("other")[0].starts == 1


def test_each_pool_whose_scaler_cannot_be_made_is_told(duty: ScalingDuty) -> None:
    def fail(pool: str, *_: object) -> NoReturn:
        raise OSError(f"no room for {pool}")

    duty._make = fail
    with pytest.raises(ExceptionGroup) as raised:
        duty.use(config_with(app={}, other={}))
    assert [(str(exc), exc.__notes__) for exc in raised.value.exceptions] == [
        ("no room for app", ["the pool app"]), ("no room for other", ["the pool other"])]


@pytest.mark.parametrize("has_ended", [True, False])
def test_servers_end_with_the_instance_and_not_with_the_controller(duty: ScalingDuty, drivers: Drivers, has_ended: bool) -> None:
    duty.use(config_with(app={}, other={}))
    duty.look()
    duty.close(has_ended)
    assert [driver.is_asked_to_close for driver in drivers.made] == [has_ended, has_ended]
    assert all(driver.running for driver in drivers.made)


def test_a_driver_that_cannot_end_its_servers_stops_no_other(
        duty: ScalingDuty, drivers: Drivers, caplog: pytest.LogCaptureFixture) -> None:
    duty.use(config_with(app={"stop_timeout": 7}, other={"stop_timeout": 9}))
    duty.look()
    for driver in drivers.made:
        driver.closes_badly = True
    duty.close(has_ended=True)
    assert [driver.is_asked_to_close for driver in drivers.made] == [True, True]
    assert caplog.text.count("cannot end the servers of the pool") == 2
    assert duty.closes_within_s > 9 and not duty.is_closed


def test_there_is_a_sign_of_life_before_each_pool(duty: ScalingDuty, drivers: Drivers) -> None:
    """Each may wait some seconds for a program, and workers kill a controller that stands still for 10 s."""
    duty.use(config_with(app={}, other={}))
    duty.look()
    duty.close(has_ended=True)
    assert {(0, 0), (1, 0), (2, 0), (2, 1)} <= set(drivers.beats)


def test_the_end_of_servers_that_end_with_the_instance_can_be_waited_for(duty: ScalingDuty, drivers: Drivers) -> None:
    duty.use(config_with(app={"stop_timeout": 7}, other={"stop_timeout": 3}))
    duty.look()
    assert (duty.is_closed, duty.closes_within_s) == (True, 0)
    duty.use(config_with(app={"stop_timeout": 5}, other={"stop_timeout": 3}))
    duty.close(has_ended=True)
    assert duty.closes_within_s > 7, "that of the server, which was started before"
    drivers.made[0].is_closed = True
    assert not duty.is_closed
    drivers.made[1].is_closed = True
    assert duty.is_closed


def test_each_driver_of_the_configuration_is_made(segment: Segment) -> None:
    config = config_with(a={}, b={"driver": "systemd", "unit": "app@{n}.service", "addresses": "127.0.0.1:9000-9099"},
                         c={"driver": "command", "up": ["up"], "down": ["down"]})
    sections = [(name, pool.scaling) for name, pool in config.pools.items() if pool.scaling is not None]
    made = [make_driver(segment, "", name, scaling, config) for name, scaling in sections]
    assert [type(each.driver) for each in made] == [ProcessDriver, SystemdDriver, CommandDriver]
    for each, (_, scaling) in zip(made, sections, strict=True):
        each.use(scaling)
