"""Deployments by `prefork-lb roll` under load, and servers that outlive the controller and end with the instance."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.support import slow_app
from tests.support.balancer import PROXY, Balancer
from tests.support.instances import instances
from tests.support.load import Load
from tests.support.waiting import wait_until

SECONDS = 40.0

CONFIGURATION = """
[pools.app.scaling]
command = ["{python}", "{program}", "{{address}}"]
min = 2
max = 2
target = 100
"""


def usable(balancer: Balancer) -> set[str]:
    """The servers that get requests."""
    found = next(each for each in instances() if each.master == balancer.master)
    return {server.address for server in found.servers if server.usable}


def controller(balancer: Balancer) -> int:
    return next(each.controller for each in instances() if each.master == balancer.master)


def processes(program: Path) -> list[int]:
    """Those that run the program, and those that keep them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str(program).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return sorted(found)


def test_a_roll_fails_no_request_and_servers_end_only_with_the_instance(tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    shutil.copy(slow_app.__file__, program)
    configuration = CONFIGURATION.format(python=sys.executable, program=program)
    with Balancer(tmp_path, configuration, PROXY, workers=2) as balancer:
        wait_until(lambda: len(usable(balancer)) == 2, lambda: f"two servers\n{balancer.log()}", SECONDS)
        with Load(balancer.address, 8, "/", pause_s=0.01) as load:
            first, ran = usable(balancer), processes(program)
            killed = wait_until(lambda: controller(balancer), "a controller", SECONDS)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: controller(balancer) not in (0, killed), lambda: f"another one\n{balancer.log()}", SECONDS)
            assert (usable(balancer), processes(program)) == (first, ran)

            result = balancer.by_hand("roll", "app", timeout=SECONDS)
            assert (result.returncode, result.stderr) == (0, "")
            second = usable(balancer)
            assert len(second) == 2 and not first & second

            program.write_text("raise SystemExit('no such module')\n")
            result = balancer.by_hand("roll", "app", timeout=SECONDS)
            assert result.returncode == 3
            assert "gone back: a new server has not started: exited with code 1" in result.stderr
            assert "no such module" in balancer.log()
            assert usable(balancer) == second
            load.stop()
        assert load.failures == []
        wait_until(lambda: len(processes(program)) == 4, "all but the two servers and their keepers has ended", SECONDS)

        for pid in (controller(balancer), balancer.master, *balancer.workers()):
            if pid:
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not processes(program), lambda: f"all servers have ended: {processes(program)}", SECONDS)
