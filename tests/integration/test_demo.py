"""`prefork-lb demo` as a user runs it: real processes, ended by real signals."""
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from prefork_lb.cli.demo import START_S, STOP_S
from prefork_lb.shared.view import InstanceView
from tests.support import processes
from tests.support.balancer import segments
from tests.support.instances import instances
from tests.support.place import clean_environment
from tests.support.waiting import wait_until

NAMES = {"app-1", "app-2", "app-3-slow"}
# A demo starts four Pythons one after the other; the balancer's may take START_S.
UP_S = START_S + 20
# Every child is given STOP_S, one after the other.
DOWN_S = 4 * STOP_S + 10


class RunningDemo:
    """A demo in a folder of its own, on a free port."""

    def __init__(self, folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.log_file = folder / "demo.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefork_lb", "demo", *arguments],
                cwd=folder, env={**clean_environment(), **(environ or {})},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        self.family: list[int] = []

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def wait_until_up(self, workers: int = 2) -> str:
        """The URL that it invites to, once all its workers have joined the balancer's instance."""
        wait_until(
            lambda: "Ctrl-C ends" in self.log or self.process.poll() is not None, lambda: f"up: {self.log}", UP_S
        )
        found = re.search(r"balances (http://127\.0\.0\.1:\d+/)", self.log)
        assert found is not None and self.process.poll() is None, self.log
        wait_until(lambda: self.joined() == workers, lambda: f"{workers} workers: {self.log}", UP_S)
        wait_until(lambda: any(instance.controller for instance in self.instances()), lambda: f"a controller: {self.log}", UP_S)
        self.family = descendants(self.process.pid)
        return found[1]

    def wait_for_family(self, count: int) -> None:
        """Wait until it has so many descendants."""
        wait_until(lambda: len(descendants(self.process.pid)) == count, lambda: f"{count}: {descendants(self.process.pid)}", UP_S)
        self.family = descendants(self.process.pid)

    def joined(self) -> int:
        """How many workers share the balancer's memory."""
        return sum(len(instance.workers) for instance in self.instances())

    def instances(self) -> list[InstanceView]:
        """The balancer's instance, once there is one."""
        family = descendants(self.process.pid)
        return [instance for instance in instances() if instance.master in family]

    def wait_for_end(self) -> int:
        """Its exit code, after everything that it started has ended."""
        code = self.process.wait(DOWN_S)
        wait_until(lambda: not any(map(processes.is_running, self.family)), lambda: f"ended: {self.family}\n{self.log}")
        return code

    def pid_of(self, part: str) -> int:
        """The one descendant whose command line has `part`."""
        direct = processes.children(self.process.pid)
        (pid,) = [pid for pid in direct if any(part in word for word in processes.command_line(pid))]
        return pid


def descendants(pid: int) -> list[int]:
    children = processes.children(pid)
    return children + [below for child in children for below in descendants(child)]


@contextmanager
def running_demo(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> Iterator[RunningDemo]:
    started = RunningDemo(folder, *arguments, environ=environ)
    try:
        yield started
    finally:
        left = [started.process.pid, *descendants(started.process.pid), *started.family]
        for pid in filter(processes.is_running, left):
            os.kill(pid, signal.SIGKILL)
        started.process.wait()
        for segment in (each for pid in left for each in segments(pid)):
            segment.unlink(missing_ok=True)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_all_three_servers_answer_through_the_balancer_until_a_signal_ends_everything(
    tmp_path: Path, stop: signal.Signals
) -> None:
    with running_demo(tmp_path, "--port", "0") as demo:
        url = demo.wait_until_up()
        demo.wait_for_family(8)  # three servers, gunicorn's master, its two workers, their controller, the dashboard
        with requests.Session() as session:
            answers = [session.get(url, timeout=20) for _ in range(9)]
        assert {answer.status_code for answer in answers} == {200}
        assert [answer.text.strip() for answer in answers] == [answer.headers["X-Served-By"] for answer in answers]
        # One after the other on idle servers: ties rotate, so that each has its turn.
        assert Counter(answer.text.strip() for answer in answers) == dict.fromkeys(NAMES, 3)
        demo.process.send_signal(stop)
        assert demo.wait_for_end() == 0, demo.log
        assert demo.log.rstrip().endswith("The demo has ended.")
        assert "Traceback" not in demo.log


def test_it_balances_over_its_own_servers_whatever_is_configured_around_it(tmp_path: Path) -> None:
    (tmp_path / "prefork_lb.toml").write_text("broken = [")
    (tmp_path / "gunicorn.conf.py").write_text("raise SystemExit('not for the demo')")
    around = {"PREFORK_LB_SERVERS": "127.0.0.1:1", "GUNICORN_CMD_ARGS": "--workers=7", "http_proxy": "http://127.0.0.1:1"}
    with running_demo(tmp_path, "--port", "0", "--workers", "1", environ=around) as demo:
        demo.wait_until_up(workers=1)
        assert "with 1 worker over" in demo.log
        demo.process.terminate()
        assert demo.wait_for_end() == 0, demo.log


@pytest.mark.parametrize(("part", "name"), [("app-2", "app-2"), ("prefork_lb:app", "the balancer")])
def test_a_child_that_dies_is_named_and_ends_the_demo(tmp_path: Path, part: str, name: str) -> None:
    with running_demo(tmp_path, "--port", "0") as demo:
        demo.wait_until_up()
        victim = demo.pid_of(part)
        os.kill(victim, signal.SIGKILL)
        assert demo.wait_for_end() == 1
        assert f"Error: {name} (pid {victim}) was killed by SIGKILL" in demo.log


def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--port", "0") as demo:
        demo.wait_until_up()
        demo.wait_for_family(8)
        demo.process.kill()
        assert demo.wait_for_end() == -signal.SIGKILL


def test_a_taken_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running_demo(tmp_path, "--port", str(port)) as demo:
            assert demo.wait_for_end() == 1
        assert f"Error: 127.0.0.1:{port}: another program uses it; take another port: `prefork-lb" in demo.log
        assert "Traceback" not in demo.log


def test_trouble_has_visitors_of_its_own_and_the_dashboard_is_named_first(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--port", "0", "--trouble") as demo:
        demo.wait_until_up()
        said = re.match(r"Dashboard: (http://127\.0\.0\.1:\d+/)\n", demo.log)
        assert said is not None, demo.log
        assert demo.log.index("balances") > demo.log.rindex(said[0])  # once more, below what gunicorn has said
        assert "<title>prefork_lb</title>" in requests.get(said[1], timeout=20).text
        wait_until(lambda: all(server.requests > 0 for instance in demo.instances() for server in instance.servers),
                   "each server has visitors")
        demo.process.terminate()
        assert demo.wait_for_end() == 0, demo.log
        assert "Traceback" not in demo.log
