"""Servers as processes, each with a keeper."""
from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prefork_lb.scaling.addresses import Addresses
from prefork_lb.scaling.driver import Ended, StartFailed
from prefork_lb.scaling.drivers.process import InstanceSegment, ProcessDriver, ProcessSettings
from prefork_lb.scaling.keepers import keepers
from prefork_lb.shared.identity import start_time
from tests.support.place import HOST
from tests.support.processes import children, descriptors, is_running
from tests.support.waiting import wait_until

MASTERS = 8


class Life:
    """An instance whose only master is a process that waits, and drivers of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.master = subprocess.Popen(["sleep", "600"])
        self.segment = f"a-test-{os.getpid()}-{time.monotonic_ns()}"
        cells = [self.master.pid, start_time(self.master.pid), *[0] * (2 * MASTERS - 2)]
        path = folder / "segment"
        path.write_bytes(b"".join(cell.to_bytes(8, "little", signed=True) for cell in cells))
        self.descriptor = os.open(path, os.O_RDWR)

    def driver(self, script: str = "sleep 600", pool: str = "app", **more: object) -> ProcessDriver:
        return ProcessDriver(InstanceSegment(self.segment, self.descriptor, (0, MASTERS)), pool, self.settings(script, **more))

    def settings(self, script: str, **more: object) -> ProcessSettings:
        settings = ProcessSettings(["/bin/sh", "-c", script], Addresses.parse("auto"), directory=str(self.folder))
        return replace(settings, **more)  # type: ignore[arg-type]

    def started(self, driver: ProcessDriver, n: int = 1) -> int:
        """Start a server; its pid once it runs its program, and has set its traps where it has some."""
        driver.start(n)
        pid = self.server(n)
        if b"trap" in self.command(pid):
            self.text(f"up-{n}")
        return pid

    def server(self, n: int = 1) -> int:
        def pid() -> int:
            for keeper in keepers(self.segment):
                # It has no command line for a moment, while its program begins.
                if keeper.n == n and (found := children(keeper.pid)) and (command := self.command(found[0])):
                    if b"keeper.py" not in command:
                        return found[0]
            return 0

        return wait_until(pid, f"server {n} runs", 20)

    def command(self, pid: int) -> bytes:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return b""

    def keeper(self, n: int = 1) -> int:
        return next(keeper.pid for keeper in keepers(self.segment) if keeper.n == n)

    def text(self, name: str) -> str:
        """What a server has written into a file, once there is a whole line."""
        path = self.folder / name
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{name} is written", 20)
        return path.read_text()


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    yield life
    for keeper in keepers(life.segment):
        os.kill(keeper.pid, signal.SIGCONT)
        os.kill(keeper.pid, signal.SIGUSR1)
    life.master.kill()
    life.master.wait()
    wait_until(lambda: not list(keepers(life.segment)), "all keepers have ended", 20)
    os.close(life.descriptor)


def end_of(driver: ProcessDriver) -> Ended:
    found: list[Ended] = []

    def has_ended() -> bool:
        found.extend(driver.ended())
        return bool(found)

    wait_until(has_ended, "a server ends", 20)
    assert len(found) == 1
    return found[0]


def gone(*pids: int) -> Callable[[], bool]:
    return lambda: not any(map(is_running, pids))


@pytest.mark.parametrize("hard", [False, True])
def test_a_keeper_that_is_stopped_ends_its_server_when_it_is_asked_to(life: Life, hard: bool) -> None:
    driver = life.driver()
    server = life.started(driver)
    os.kill(life.keeper(), signal.SIGSTOP)
    driver.stop(1, hard)
    found: list[Ended] = []
    wait_until(lambda: found.extend(driver.ended()) or found, "the server has ended", 20)
    assert not is_running(server)


def test_a_server_runs_until_it_is_stopped(life: Life) -> None:
    driver = life.driver('trap "exit 3" TERM; echo >up-{n}; while :; do sleep 0.05; done')
    pid = life.started(driver)
    assert driver.ended() == []
    driver.stop(1, hard=False)
    assert end_of(driver) == Ended(1, "exited with code 3")
    assert not is_running(pid)


def test_the_end_of_the_instance_asks_servers_to_end(life: Life) -> None:
    driver = life.driver('trap "until [ -e go ]; do sleep 0.05; done; exit 3" TERM; echo >up-{n}; while :; do sleep 0.05; done')
    life.started(driver)
    driver.close()
    assert not driver.is_closed
    (life.folder / "go").touch()
    wait_until(lambda: driver.is_closed, "the server has ended", 20)
    assert end_of(driver) == Ended(1, "exited with code 3")


def test_one_that_does_not_end_is_killed_with_all_that_it_has_started(life: Life) -> None:
    driver = life.driver('trap "" TERM; setsid sleep 600 & echo $! >below; echo >up-{n}; while :; do sleep 0.05; done')
    pid = life.started(driver)
    below = int(life.text("below"))
    driver.stop(1, hard=False)
    driver.stop(1, hard=True)
    assert end_of(driver).why == "was killed by SIGKILL"
    assert gone(pid, below)()


def test_what_an_ended_server_leaves_behind_ends_too(life: Life) -> None:
    driver = life.driver("setsid sleep 600 & echo $! >below; exit 1")
    driver.start(1)
    assert end_of(driver).why == "exited with code 1"
    assert gone(int(life.text("below")))()


def test_the_last_lines_say_why_a_server_has_ended(life: Life) -> None:
    driver = life.driver("seq 1 10000; echo Address already in use >&2; exit 1", log="/dev/null")
    driver.start(1)
    ended = end_of(driver)
    assert ended.last_lines.endswith("9999\n10000\nAddress already in use")
    assert len(ended.last_lines) < 2000


def test_a_program_that_is_not_there_is_named(life: Life) -> None:
    driver = life.driver(command=["/no/such/program", "{port}"], log="/dev/null")
    driver.start(1)
    ended = end_of(driver)
    assert ended.why == "exited with code 127"
    assert "/no/such/program cannot be started: [Errno 2] No such file or directory" in ended.last_lines


def test_a_server_ends_with_the_instance_whatever_ends_that(life: Life) -> None:
    driver = life.driver('trap "" TERM; sleep 600 & echo >up-{n}; wait; wait', stop_timeout_s=0.1)
    pid, keeper = life.started(driver), life.keeper()
    below = wait_until(lambda: children(pid), "it has started its own", 20)
    life.master.send_signal(signal.SIGKILL)
    wait_until(gone(pid, keeper, *below), "all have ended", 20)


def test_a_server_ends_with_its_keeper(life: Life) -> None:
    driver = life.driver("sleep 600 & echo $! >below; exec sleep 600")
    pid, below = life.started(driver), int(life.text("below"))
    os.kill(life.keeper(), signal.SIGKILL)
    wait_until(gone(pid), "the server has ended", 20)
    assert end_of(driver).why == "its keeper was killed"
    wait_until(gone(below), "what it had started has ended", 20)


def test_another_controller_takes_up_the_same_servers(life: Life) -> None:
    first = life.driver('echo begun; trap "echo over; exit 4" TERM; echo >up-{n}; while :; do sleep 0.05; done', log="/dev/null",
                        stop_timeout_s=77)
    pids = [life.started(first, n) for n in (1, 2)]
    life.driver("sleep 600", pool="other").start(3)
    second = life.driver("exit 1")
    adopted = second.adopt()
    assert {n: running.address for n, running in adopted.items()} == {1: first.address(1), 2: first.address(2)}
    assert all(0 <= time.monotonic() - running.since < 60 for running in adopted.values())
    assert [running.stop_timeout_s for running in adopted.values()] == [77, 77], "not that of the configuration now"
    assert [life.server(1), life.server(2)] == pids
    second.stop(2, hard=False)
    assert end_of(second) == Ended(2, "exited with code 4", "begun\nover")


def test_what_looks_like_another_users_keeper_is_none(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.started(life.driver())
    assert len(list(keepers(life.segment))) == 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 12345)
        assert list(keepers(life.segment)) == []


def test_a_server_gets_its_address_and_nothing_of_the_balancers_own(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_FD", "3")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("OF_ALL", "inherited")
    driver = life.driver('(echo {address} {port} {n} "$WHERE"; env; ls /proc/self/fd | wc -l; pwd; umask; ulimit -n) >all; '
                         "mv all told; exec sleep 600", environment={"WHERE": "at {port}"}, umask=0o27, limits={"nofile": 77})
    life.started(driver)
    host, _, port = driver.address(1).rpartition(":")
    told = life.text("told").splitlines()
    assert told[0] == f"{host}:{port} {port} 1 at {port}"
    assert "OF_ALL=inherited" in told
    assert not [line for line in told if line.startswith(("GUNICORN_FD", "LISTEN_FDS"))]
    assert told[-4:] == ["4", str(life.folder), "0027", "77"]  # stdin, stdout, stderr, and the folder that is listed


def test_signals_that_the_controller_ignores_reach_the_server(life: Life) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        driver = life.driver('trap "exit 5" HUP; echo >up-{n}; while :; do sleep 0.05; done')
        pid = life.started(driver)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.kill(pid, signal.SIGHUP)
    assert end_of(driver).why == "exited with code 5"


def test_output_goes_to_a_file_also_when_that_is_moved_away(life: Life) -> None:
    driver = life.driver("while :; do echo {n}; sleep 0.05; done", log=f"{life.folder}/app-{{n}}.log")
    driver.start(1)
    life.text("app-1.log")
    (life.folder / "app-1.log").rename(life.folder / "moved")
    assert set(life.text("app-1.log").split()) == {"1"}


def test_a_file_for_output_that_cannot_be_opened_is_told_once(life: Life, capfd: pytest.CaptureFixture[str]) -> None:
    driver = life.driver("echo one; sleep 0.1; echo two; exit 1", log=f"{life.folder}/nowhere/app.log")
    driver.start(1)
    assert end_of(driver).last_lines == "one\ntwo"
    assert capfd.readouterr().err == \
        f"prefork_lb: what a server writes is lost: [Errno 2] No such file or directory: '{life.folder}/nowhere/app.log'\n"


def test_memory_and_cpu_time_are_those_of_all_its_processes(life: Life) -> None:
    driver = life.driver("(x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo >ready; sleep 600; :) & while :; do :; done")
    driver.start(1)
    life.text("ready")
    assert (driver.memory(1) or 0) > 20_000_000
    wait_until(lambda: (driver.cpu_s(1) or 0) > 0.05, "it has used CPU time", 20)


def test_no_two_servers_get_one_address_whatever_their_pools_are(life: Life) -> None:
    addresses = Addresses("", HOST, 1041, 1042)
    one, other = life.driver(addresses=addresses), life.driver(addresses=addresses, pool="other")
    one.start(1)
    other.start(1)
    assert one.address(1) != other.address(1)
    with pytest.raises(StartFailed, match="in use"):
        one.start(2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start processes of another user")
def test_a_server_can_be_another_users(life: Life) -> None:
    driver = life.driver("id -u; exec sleep 600", user="nobody", directory="/", log="/dev/null")
    pid = life.started(driver)
    wait_until(lambda: driver.last_lines(1), "it has told its user", 20)
    assert driver.last_lines(1) == str(pwd.getpwnam("nobody").pw_uid) == str(Path(f"/proc/{pid}").stat().st_uid)
    os.kill(life.keeper(), signal.SIGKILL)
    wait_until(gone(pid), "the server has ended with its keeper", 20)


def test_a_user_that_is_not_there_is_named(life: Life) -> None:
    with pytest.raises(StartFailed, match="no-such-user"):
        life.driver(user="no-such-user").start(1)


def test_a_keeper_that_cannot_be_started_leaves_no_descriptor(life: Life) -> None:
    before = descriptors(os.getpid())
    with pytest.raises(StartFailed, match="its keeper cannot be started: .*null byte"):
        life.driver(command=["/bin/true", "\0"]).start(1)
    assert descriptors(os.getpid()) == before
