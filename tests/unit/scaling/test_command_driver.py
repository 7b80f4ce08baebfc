"""Servers that an operator's programs start and end."""
from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.scaling.driver import Ended, StartFailed
from prefork_lb.scaling.drivers.command import CommandDriver, CommandSettings, servers_folder
from prefork_lb.scaling.hook import Hook
from tests.support.processes import is_running
from tests.support.waiting import wait_until

UP = """
echo up $PREFORK_LB_POOL $PREFORK_LB_N $PREFORK_LB_COUNT >> calls
while [ -e slow ]; do sleep 0.01; done
[ -e broken ] && { echo 'quota exceeded' >&2; exit 3; }
echo 'machine is booting'
cat address 2> /dev/null || echo 10.0.0.$PREFORK_LB_N:8000
"""
DOWN = """
while [ -e busy ]; do sleep 0.01; done
[ -e stuck ] && { echo 'try later' >&2; exit 4; }
echo down $PREFORK_LB_N $PREFORK_LB_ADDRESS $PREFORK_LB_COUNT >> calls
"""


class Cloud:
    """The hooks, in a folder where files tell them what to do, and a driver."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, ManualClock(1000.0)
        self.driver = self.new_driver()

    def new_driver(self) -> CommandDriver:
        """That of another controller."""
        up, down = (["sh", "-c", f"cd {self.folder}\n{script}"] for script in (UP, DOWN))
        self.driver = CommandDriver("app", self.folder / "servers", CommandSettings(up, down), self.clock)
        return self.driver

    def touch(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def clear(self, name: str) -> None:
        (self.folder / name).unlink()

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []

    def look_until(self, is_done: Callable[[list[Ended]], object], what: str) -> list[Ended]:
        found: list[Ended] = []

        def look() -> object:
            found.extend(self.driver.ended())
            return is_done(found)

        wait_until(look, lambda: f"{what}; ended: {found}, calls: {self.calls}", 20)
        return found

    def start(self, n: int) -> None:
        self.driver.start(n)
        self.look_until(lambda _: self.driver.address(n), "it has an address")

    def pid(self, hook: str) -> int:
        """That of the only server's hook, and of its process group; 0: it is not called yet."""
        files = list((self.folder / "servers").glob(f"*/{hook}.pid"))
        return int(files[0].read_text() or 0) if files else 0

    @property
    def noted(self) -> int:
        return len(list((self.folder / "servers").iterdir()))


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def test_up_starts_a_server_and_says_its_address(cloud: Cloud) -> None:
    cloud.driver.start(1)
    assert cloud.driver.address(1) == "", "it is not known yet"
    cloud.look_until(lambda _: cloud.driver.address(1), "it has an address")
    cloud.start(2)
    assert (cloud.driver.address(1), cloud.driver.address(2)) == ("10.0.0.1:8000", "10.0.0.2:8000")
    assert cloud.calls == ["up app 1 1", "up app 2 2"]


def test_down_ends_it(cloud: Cloud) -> None:
    cloud.start(1)
    cloud.start(2)
    cloud.driver.stop(1, hard=False)
    assert [ended.n for ended in cloud.look_until(bool, "it has ended")] == [1]
    assert cloud.calls[-1] == "down 1 10.0.0.1:8000 1" and cloud.noted == 1


def test_an_up_that_fails_is_told_with_its_last_words(cloud: Cloud) -> None:
    cloud.touch("broken")
    cloud.driver.start(1)
    assert cloud.look_until(bool, "it has ended") == [Ended(1, "`up` has failed with code 3", "quota exceeded")]
    assert cloud.noted == 0


@pytest.mark.parametrize("address", ["nonsense", "\n", "10.0.0.1"])
def test_an_up_that_prints_no_address_is_told(cloud: Cloud, address: str) -> None:
    cloud.touch("address", address)
    cloud.driver.start(1)
    assert cloud.look_until(bool, "it has ended")[0].why.startswith("`up` has printed no address: ")


def test_a_server_that_is_not_wanted_before_it_is_up_ends_when_it_is(cloud: Cloud) -> None:
    cloud.touch("slow")
    cloud.driver.start(1)
    cloud.driver.stop(1, hard=False)
    assert cloud.driver.ended() == []
    cloud.clear("slow")
    cloud.look_until(bool, "it has ended")
    assert cloud.calls == ["up app 1 1", "down 1 10.0.0.1:8000 0"]


def test_an_up_that_ends_in_the_middle_of_a_look_tells_its_address_first(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.touch("slow")
    cloud.driver.start(1)
    cloud.driver.stop(1, hard=False)
    code = Hook.code

    def late(hook: Hook) -> int | None:
        found = code(hook)
        if found is None and (cloud.folder / "slow").exists():
            cloud.clear("slow")
            wait_until(lambda: list((cloud.folder / "servers").glob("*/up.code")), "up has ended", 20)
        return found

    monkeypatch.setattr(Hook, "code", late)
    cloud.look_until(bool, "it has ended")
    assert cloud.calls == ["up app 1 1", "down 1 10.0.0.1:8000 0"]


def test_a_hard_stop_kills_an_up_that_hangs_and_calls_down(cloud: Cloud) -> None:
    cloud.touch("slow")
    cloud.driver.start(1)
    cloud.look_until(lambda _: cloud.calls, "up is called")
    cloud.driver.stop(1, hard=True)
    cloud.look_until(bool, "it has ended")
    assert cloud.calls == ["up app 1 1", "down 1 0"], "without an address"


def test_a_down_that_fails_is_called_again(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    cloud.start(1)
    cloud.touch("stuck")
    cloud.driver.stop(1, hard=False)
    cloud.look_until(lambda _: "has failed with code 4" in caplog.text, "it is told")
    assert "try later" in caplog.text
    cloud.clear("stuck")
    assert cloud.driver.ended() == [] and cloud.calls == ["up app 1 1"], "not yet"
    cloud.clock.advance(10)
    cloud.look_until(bool, "it has ended")
    assert cloud.calls[-1] == "down 1 10.0.0.1:8000 0"


def test_the_next_controller_takes_up_what_runs(cloud: Cloud) -> None:
    cloud.start(1)
    cloud.touch("slow")
    cloud.driver.start(3)
    cloud.look_until(lambda _: len(cloud.calls) == 2, "up is called")
    driver = cloud.new_driver()
    assert {n: running.address for n, running in driver.adopt().items()} == {1: "10.0.0.1:8000", 3: ""}
    cloud.clear("slow")
    cloud.look_until(lambda _: driver.address(3) == "10.0.0.3:8000", "it is up")
    driver.stop(3, hard=False)
    cloud.look_until(bool, "it has ended")
    assert cloud.calls == ["up app 1 1", "up app 3 2", "down 3 10.0.0.3:8000 1"], "nothing twice"


def test_the_next_controller_goes_on_to_end_what_was_being_ended(cloud: Cloud) -> None:
    cloud.start(1)
    cloud.touch("stuck")
    cloud.driver.stop(1, hard=False)
    cloud.look_until(lambda _: list((cloud.folder / "servers").glob("*/down.code")), "down is called")
    cloud.clear("stuck")
    driver = cloud.new_driver()
    assert driver.adopt() == {}
    driver.start(1)  # the number is free
    cloud.look_until(lambda _: "down 1 10.0.0.1:8000 1" in cloud.calls and cloud.noted == 1, "the old one is ended")
    cloud.look_until(lambda _: driver.address(1), "the new one has an address")


def test_an_up_that_was_killed_is_followed_by_down(cloud: Cloud) -> None:
    cloud.touch("slow")
    cloud.driver.start(1)
    cloud.look_until(lambda _: cloud.calls, "up is called")
    os.killpg(cloud.pid("up"), signal.SIGKILL)
    assert cloud.look_until(bool, "it is over")[0].why == "`up` was killed"


def test_what_an_up_has_begun_that_was_killed_with_the_controller_is_ended(cloud: Cloud) -> None:
    cloud.touch("slow")
    cloud.driver.start(1)
    cloud.look_until(lambda _: cloud.calls, "up is called")
    os.killpg(cloud.pid("up"), signal.SIGKILL)
    wait_until(lambda: cloud.new_driver().adopt() == {}, "it is over", 20)
    cloud.look_until(lambda _: "down 1 0" in cloud.calls and not cloud.noted, "down is called, without an address")


def test_the_end_of_the_instance_ends_the_servers(cloud: Cloud) -> None:
    for n in (1, 2):
        cloud.start(n)
    cloud.driver.close()
    both = ["down 1 10.0.0.1:8000 1", "down 2 10.0.0.2:8000 1"]
    wait_until(lambda: sorted(cloud.calls)[:2] == both, "down is called for both", 20)
    wait_until(lambda: cloud.driver.is_closed, "both have ended", 20)
    driver = cloud.new_driver()
    assert driver.adopt() == {}


def test_the_end_of_the_instance_calls_no_down_that_runs_already(cloud: Cloud) -> None:
    cloud.start(1)
    cloud.touch("busy")
    cloud.driver.stop(1, hard=False)
    cloud.look_until(lambda _: cloud.pid("down"), "down is called")
    before = cloud.pid("down")
    cloud.driver.close()
    assert cloud.pid("down") == before
    assert not cloud.driver.is_closed
    cloud.clear("busy")
    wait_until(lambda: cloud.driver.is_closed, "down has ended", 20)
    cloud.look_until(bool, "it has ended")
    assert cloud.calls == ["up app 1 1", "down 1 10.0.0.1:8000 0"]


def test_the_end_of_the_instance_leaves_no_up_that_starts_something_after_down(cloud: Cloud) -> None:
    cloud.touch("slow")
    cloud.driver.start(1)
    cloud.look_until(lambda _: cloud.calls, "up is called")
    up = cloud.pid("up")
    cloud.driver.close()
    assert not is_running(up)
    wait_until(lambda: cloud.calls == ["up app 1 1", "down 1 0"], "down is called, without an address", 20)


def test_the_end_of_the_instance_ends_what_another_controller_could_not_end(cloud: Cloud) -> None:
    """Its `down` has failed, and is due again only later."""
    cloud.start(1)
    cloud.touch("stuck")
    cloud.driver.stop(1, hard=False)
    cloud.look_until(lambda _: list((cloud.folder / "servers").glob("*/down.code")), "down has failed")
    cloud.clear("stuck")
    driver = cloud.new_driver()
    assert driver.adopt() == {}
    driver.close()
    wait_until(lambda: cloud.calls == ["up app 1 1", "down 1 10.0.0.1:8000 0"], lambda: f"down is called: {cloud.calls}", 20)
    wait_until(lambda: driver.is_closed, "it has ended", 20)


def test_the_end_of_the_instance_ends_a_server_that_has_just_come_up(cloud: Cloud) -> None:
    """Its address was not taken over yet."""
    cloud.driver.start(1)
    wait_until(lambda: list((cloud.folder / "servers").glob("*/up.code")), "up has ended", 20)
    cloud.driver.close()
    wait_until(lambda: cloud.calls == ["up app 1 1", "down 1 10.0.0.1:8000 0"], lambda: f"down is called: {cloud.calls}", 20)


def test_without_the_program_it_has_failed(tmp_path: Path) -> None:
    driver = CommandDriver("app", tmp_path / "servers", CommandSettings(["/nowhere/up"], ["down"]), ManualClock())
    driver.start(1)
    found: list[Ended] = []
    wait_until(lambda: found.extend(driver.ended()) or found, "it has ended", 20)  # type: ignore[func-returns-value]
    assert found[0].why == "`up` has failed with code 127"


def test_of_an_up_that_cannot_be_called_nothing_is_noted(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "too many processes")

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", refuse)
        with pytest.raises(StartFailed, match="sh cannot be called: .*too many processes"):
            cloud.driver.start(1)
    assert cloud.noted == 0


def test_servers_are_noted_beside_the_state_file(tmp_path: Path) -> None:
    assert servers_folder(str(tmp_path / "state"), "/etc/a.toml", "app") == tmp_path / "state.servers-app"
    assert servers_folder("", "/etc/a.toml", "app") == Path(f"/tmp/prefork-lb-{os.geteuid()}-etc-a.toml-app")
