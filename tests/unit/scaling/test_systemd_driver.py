"""Servers that are units of systemd, with a script in the place of systemctl."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.scaling.addresses import Addresses
from prefork_lb.scaling.driver import Ended, StartFailed
from prefork_lb.scaling.drivers.systemd import SystemdDriver, UnitSettings
from tests.support.waiting import wait_until

SCRIPT = Path(__file__).with_name("systemctl.sh")
SETTINGS = UnitSettings("app@{n}.service", Addresses.parse("127.0.0.1:9001-9099"))


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the units."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").symlink_to(SCRIPT)
    (tmp_path / "units").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("UNITS", str(tmp_path / "units"))
    return tmp_path / "units"


@pytest.fixture
def driver(units: Path) -> SystemdDriver:
    return SystemdDriver(SETTINGS)


def states(units: Path) -> dict[str, str]:
    return {unit.name: unit.read_text().strip() for unit in units.glob("*@*")}


def looked(driver: SystemdDriver, is_done: Callable[[list[Ended]], bool]) -> list[Ended]:
    """All that has ended, until that is enough."""
    found: list[Ended] = []

    def is_enough() -> bool:
        found.extend(driver.ended())
        return is_done(found)

    wait_until(is_enough, lambda: f"what has ended: {found}", 20)
    return found


def test_a_server_is_the_unit_of_its_number(driver: SystemdDriver, units: Path) -> None:
    driver.start(1)
    driver.start(3)
    assert (driver.address(1), driver.address(3)) == ("127.0.0.1:9001", "127.0.0.1:9003")
    wait_until(lambda: states(units) == {"app@1.service": "active", "app@3.service": "active"}, "both run", 20)
    looked(driver, lambda _: driver.memory(3) is not None)
    assert (driver.memory(3), driver.cpu_s(3), driver.last_lines(3)) == (1 << 20, 2.5, "")


def test_a_unit_may_be_named_after_its_port(units: Path) -> None:
    driver = SystemdDriver(UnitSettings("app@{port}.service", Addresses.parse("127.0.0.1:9001-9099")))
    driver.start(2)
    wait_until(lambda: "app@9002.service" in states(units), "it runs", 20)
    assert set(SystemdDriver(UnitSettings("app@{port}.service", Addresses.parse("127.0.0.1:9001-9099"))).adopt()) == {2}


def test_a_unit_that_cannot_be_started_has_ended_and_says_why(driver: SystemdDriver, units: Path) -> None:
    (units / "broken").touch()
    driver.start(1)
    why = "app@1.service could not be started: Job for app@1.service failed because the control process exited with error code."
    assert looked(driver, bool) == [Ended(1, why)]


def test_a_start_that_takes_too_long_is_the_fleets_to_end(units: Path) -> None:
    """systemd goes on with it, whatever becomes of systemctl: a driver that forgot the unit would leave it running."""
    (units / "hangs").touch()
    clock = ManualClock()
    driver = SystemdDriver(UnitSettings(SETTINGS.unit, SETTINGS.addresses, start_timeout_s=60, stop_timeout_s=30), clock)
    driver.start(1)
    clock.advance(61)
    assert driver.ended() == []
    driver.stop(1, hard=False)
    wait_until(lambda: states(units) == {"app@1.service": "inactive"}, "the unit is stopped", 20)
    clock.advance(30 + 10)
    assert looked(driver, bool) == [Ended(1, "app@1.service could not be started: has not ended within 100 s")]


def test_a_stop_ends_it(driver: SystemdDriver, units: Path) -> None:
    driver.start(1)
    looked(driver, lambda _: driver.memory(1) is not None)
    driver.stop(1, hard=False)
    assert looked(driver, bool) == [Ended(1, "app@1.service ended; its journal says more")]
    assert states(units) == {"app@1.service": "inactive"}


def test_a_stop_that_systemd_refuses_is_told(driver: SystemdDriver, units: Path, caplog: pytest.LogCaptureFixture) -> None:
    driver.start(1)
    looked(driver, lambda _: driver.memory(1) is not None)
    (units / "refuses").touch()
    driver.stop(1, hard=False)
    assert looked(driver, lambda _: "could not be stopped" in caplog.text) == []
    assert "app@1.service could not be stopped: Failed to stop app@1.service: Access denied" in caplog.text


def test_a_stop_of_one_that_has_just_ended_is_no_error(driver: SystemdDriver, units: Path,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    driver.start(1)
    looked(driver, lambda _: driver.memory(1) is not None)
    (units / "app@1.service").write_text("inactive")
    (units / "refuses").touch()
    driver.stop(1, hard=False)
    assert looked(driver, bool) == [Ended(1, "app@1.service ended; its journal says more")]
    assert "could not be stopped" not in caplog.text


def test_a_hard_stop_kills_it(driver: SystemdDriver, units: Path) -> None:
    driver.start(1)
    looked(driver, lambda _: driver.memory(1) is not None)
    driver.stop(1, hard=True)
    assert looked(driver, bool)[0].why == "app@1.service ended with the result signal, status 9; its journal says more"
    assert "kill --signal=KILL app@1.service" in (units / "calls").read_text()


def test_a_unit_that_ends_by_itself_is_told(driver: SystemdDriver, units: Path) -> None:
    driver.start(1)
    looked(driver, lambda _: driver.memory(1) is not None)
    (units / "app@1.service").write_text("failed")
    assert [ended.n for ended in looked(driver, bool)] == [1]


def test_the_next_controller_takes_up_what_runs(driver: SystemdDriver, units: Path) -> None:
    for name, state in (("app@2.service", "active"), ("app@4.service", "inactive"), ("app@x.service", "active"),
                        ("app@200.service", "active"), ("other@1.service", "active")):
        (units / name).write_text(state)
    assert driver.adopt() == {2: ("127.0.0.1:9002", 5.0, None)}
    driver.stop(2, hard=False)
    assert [ended.n for ended in looked(driver, bool)] == [2]


def test_the_end_of_the_instance_ends_the_units(driver: SystemdDriver, units: Path) -> None:
    for n in (1, 2):
        driver.start(n)
    wait_until(lambda: len(states(units)) == 2, "both run", 20)
    driver.close()
    assert set(states(units).values()) == {"inactive"}


def test_at_the_end_of_the_instance_one_that_has_just_ended_is_no_error(driver: SystemdDriver, units: Path,
                                                                        caplog: pytest.LogCaptureFixture) -> None:
    for n in (1, 2):
        driver.start(n)
    wait_until(lambda: set(states(units).values()) == {"active"} and len(states(units)) == 2, "both run", 20)
    (units / "app@1.service").write_text("gone")
    driver.close()
    assert states(units)["app@2.service"] == "inactive" and caplog.text == ""


def test_at_the_end_of_the_instance_a_unit_that_goes_on_is_told(driver: SystemdDriver, units: Path,
                                                                caplog: pytest.LogCaptureFixture) -> None:
    driver.start(1)
    wait_until(lambda: states(units) == {"app@1.service": "active"}, "it runs", 20)
    (units / "refuses").touch()
    driver.close()
    assert "could not be stopped: app@1.service: Failed to stop app@1.service: Access denied" in caplog.text


def test_a_number_beyond_the_addresses_cannot_be_started(units: Path) -> None:
    driver = SystemdDriver(UnitSettings("app@{n}.service", Addresses.parse("127.0.0.1:9001-9002")))
    with pytest.raises(StartFailed, match="server 3 has no address: there are 2"):
        driver.start(3)


def test_without_systemctl_a_start_fails_with_the_reason(driver: SystemdDriver, units: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(units))
    driver.start(1)
    assert looked(driver, bool)[0].why == "app@1.service could not be started: systemctl: No such file or directory"
