"""A real controller process on a segment of its own: what fails there, and what goes on all the same."""
from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork_lb.controller.discovery_duty import DiscoveryDuty
from prefork_lb.controller.exit_codes import ANOTHER_RUNS
from prefork_lb.controller.process import Controller
from prefork_lb.controller.scaling_duty import ScalingDuty
from prefork_lb.controller.state_saver import StateSaver
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import publish
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.transitions import Check
from tests.support.waiting import wait_until
from tests.unit.shared.processes import Signals, running


class Running:
    """A controller process, its log, and a worker's view of the instance."""

    def __init__(self, segment: Segment, folder: Path) -> None:
        self.segment, self.folder = segment, folder
        self.ledger, self.states = Ledger(segment), States(segment)
        self.address, self.slot = "", -1
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    def publish(self, **more: Any) -> None:
        """A configuration with one server that is checked, and `more`."""
        pool = {"servers": [{"address": self.address}], "health": {"type": "tcp", "interval": 0.1, "start": "checking"}}
        publish(self.segment, self.ledger, json.dumps({"pools": {"web": pool}} | more).encode())

    def start(self) -> subprocess.Popen[bytes]:
        self._processes.append(subprocess.Popen(
            [sys.executable, "-m", "prefork_lb.controller", self.segment.name, "--descriptor", str(self.segment.descriptor),
             "--log", str(self.folder / "log")],
            stdin=subprocess.DEVNULL, pass_fds=[self.segment.descriptor]))
        return self._processes[-1]

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def instance(segment: Segment, tmp_path: Path) -> Iterator[Running]:
    found = Running(segment, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found.address = f"127.0.0.1:{server.getsockname()[1]}"
        slots = register(segment, found.ledger, [PoolEntry("web", [ServerEntry(found.address, 1, 0, False)])])
        found.slot = slots["web"].slots[0]
        yield found
        found.end()


def checked(instance: Running) -> Callable[[], bool]:
    return lambda: instance.states.check[instance.slot] == Check.UP


def test_a_configuration_with_keys_of_a_newer_version_is_gone_by_as_far_as_they_are_known(instance: Running) -> None:
    instance.publish(novelty={"on": True}, proxy={"via": "lb", "colour": "blue"})
    instance.start()
    wait_until(checked(instance), lambda: f"the server is checked\n{instance.log}", 20)
    assert "does not know novelty, proxy.colour; it goes by the rest" in instance.log
    assert "Traceback" not in instance.log


def test_a_configuration_that_cannot_be_read_stops_neither_sweeping_nor_the_sign_of_life(
    instance: Running, signals: Signals
) -> None:
    publish(instance.segment, instance.ledger, b'{"pools": 7}')

    def claim() -> None:
        ledger = Ledger(instance.segment)
        with ledger.locked():
            ledger.claim(instance.slot)
        signals.send()
        signal.pause()

    with running(claim):
        signals.wait()
        instance.start()
        wait_until(lambda: "cannot take over the configuration" in instance.log, lambda: instance.log, 20)
        assert instance.ledger.totals[instance.slot] == 1
    wait_until(lambda: not instance.ledger.totals[instance.slot], lambda: f"the claim is given back\n{instance.log}", 20)
    beat = instance.segment.cells[at.H_BEAT]
    wait_until(lambda: instance.segment.cells[at.H_BEAT] > beat, "it goes on", 20)
    assert instance.log.count("cannot take over the configuration") == 1, "what stays the same is not told four times a second"
    # A good one follows.
    instance.publish()
    wait_until(checked(instance), lambda: f"the server is checked\n{instance.log}", 20)
    assert "the controller can take over the configuration again" in instance.log


def test_a_second_controller_ends_and_the_first_goes_on(instance: Running) -> None:
    first = instance.start()
    wait_until(lambda: instance.segment.cells[at.H_BEAT], "it works", 20)
    assert instance.start().wait(20) == ANOTHER_RUNS
    assert first.poll() is None and instance.segment.cells[at.H_CONTROLLER] == first.pid


def test_what_was_set_in_the_last_moment_is_saved_and_the_time_of_the_end_with_it(instance: Running) -> None:
    file = instance.folder / "states"
    instance.segment.cells[at.H_RESTORED] = 1
    instance.publish(state={"file": str(file)})
    process = instance.start()
    wait_until(file.exists, lambda: f"a first file\n{instance.log}", 20)
    with instance.ledger.locked():
        instance.states.set_admin(instance.slot, Admin.DRAIN)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert json.loads(file.read_text())["pools"] == {"web": {instance.address: {"state": "drain"}}}


def test_a_controller_without_a_descriptor_goes_on_and_says_so_once(instance: Running) -> None:
    """It cannot look whether its masters run, which is no reason to take them for ended, or to end itself."""
    instance.publish()
    process = instance.start()
    wait_until(checked(instance), lambda: f"the server is checked\n{instance.log}", 20)
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    wait_until(lambda: "cannot see whether the instance runs" in instance.log, lambda: f"it says so\n{instance.log}", 20)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    wait_until(lambda: "can see whether the instance runs again" in instance.log, lambda: f"it goes on\n{instance.log}", 20)
    assert process.poll() is None
    assert instance.log.count("cannot see whether the instance runs") == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_controller_of_another_version_than_the_running_workers_says_so_and_ends(instance: Running) -> None:
    """The package was upgraded: gunicorn's workers have the modules of before, and a new controller loads the new ones."""
    instance.segment.cells[at.H_VERSION] = at.VERSION - 1
    assert instance.start().wait(20) == 0
    assert "has the format of another version of prefork_lb" in instance.log and "SIGUSR2" in instance.log


def test_metrics_go_to_statsd_from_the_configuration_that_says_so_until_the_end(instance: Running) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(20)
        found: dict[str, str] = {}

        def hears(name: str, value: str = "") -> bool:
            while found.get(name, "-") == "-" or value not in found[name]:
                for line in statsd.recv(65536).decode().split("\n"):
                    found.update([line.split(":")])
            return True

        instance.publish()
        process = instance.start()
        wait_until(checked(instance), lambda: instance.log, 20)
        address = f"udp://127.0.0.1:{statsd.getsockname()[1]}"
        instance.publish(metrics={"statsd": "udp://nowhere.invalid:1", "interval": 0.05})
        wait_until(lambda: "cannot send metrics to StatsD" in instance.log, lambda: instance.log, 20)
        instance.publish(metrics={"statsd": address, "interval": 0.05, "prefix": "lb"})
        server = instance.address.replace(".", "_").replace(":", "_")
        assert hears(f"lb.server_up.web.{server}", "1|g")
        assert hears(f"lb.checks.web.{server}.passed", "|c")
        instance.publish(metrics={"statsd": address, "interval": 3600, "prefix": "end"})
        assert hears(f"end.server_up.web.{server}")
        found.clear()
        process.terminate()
        assert hears(f"end.server_up.web.{server}")  # once more
        process.wait()


def test_what_fails_at_the_end_does_not_stop_the_rest(segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state file is written after the servers of scaling were asked to end."""
    def fail(*_: object) -> None:
        raise OSError("no systemd")

    monkeypatch.setattr(ScalingDuty, "close", fail)
    ended: list[StateSaver] = []
    close = StateSaver.close

    def note(saver: StateSaver) -> None:
        close(saver)
        ended.append(saver)

    monkeypatch.setattr(StateSaver, "close", note)
    stop = threading.Event()
    stop.set()
    Controller(segment, "").run(stop)
    assert len(ended) == 1


def test_a_duty_that_cannot_go_by_a_configuration_stops_no_other_and_is_asked_again(
    instance: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread more may be refused, as by a limit of the system."""
    used: list[str] = []

    def refuse(*_: object) -> None:
        used.append("discovery")
        if len(used) < 3:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(DiscoveryDuty, "use", refuse)
    monkeypatch.setattr(StateSaver, "use", lambda *_: used.append("state"))
    instance.publish()
    controller = Controller(instance.segment, "")
    stop, looks = threading.Event(), iter(range(5))
    monkeypatch.setattr(stop, "wait", lambda timeout: next(looks) == 4)  # instead of the time between two looks
    controller.run(stop)
    assert used == ["discovery", "state", "discovery"]
