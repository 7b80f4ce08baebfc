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
from tests.support.instances import instance_of, usable
from tests.support.load import Load
from tests.support.processes import with_words
from tests.support.waiting import wait_until

SECONDS = 40.0

CONFIGURATION = """
[pools.app.scaling]
command = ["{python}", "{program}", "{{address}}"]
min = 2
max = 2
target = 100
"""


def controller(balancer: Balancer) -> int:
    return instance_of(balancer.master).controller


def test_a_roll_fails_no_request_and_servers_end_only_with_the_instance(tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    shutil.copy(slow_app.__file__, program)
    configuration = CONFIGURATION.format(python=sys.executable, program=program)
    with Balancer(tmp_path, configuration, PROXY, workers=2) as balancer:
        wait_until(lambda: len(usable(balancer.master)) == 2, lambda: f"two servers\n{balancer.log()}", SECONDS)
        with Load(balancer.address, 8, "/", pause_s=0.01) as load:
            first, ran = usable(balancer.master), with_words(str(program))
            killed = wait_until(lambda: controller(balancer), "a controller", SECONDS)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: controller(balancer) not in (0, killed), lambda: f"another one\n{balancer.log()}", SECONDS)
            assert (usable(balancer.master), with_words(str(program))) == (first, ran)

            result = balancer.by_hand("roll", "app", timeout=SECONDS)
            assert (result.returncode, result.stderr) == (0, "")
            second = usable(balancer.master)
            assert len(second) == 2 and not first & second

            program.write_text("raise SystemExit('no such module')\n")
            result = balancer.by_hand("roll", "app", timeout=SECONDS)
            assert result.returncode == 3
            assert "gone back: a new server has not started: exited with code 1" in result.stderr
            assert "no such module" in balancer.log()
            assert usable(balancer.master) == second
            load.stop()
        assert load.failures == []
        wait_until(lambda: len(with_words(str(program))) == 4, "all but the two servers and their keepers has ended", SECONDS)

        for pid in (controller(balancer), balancer.master, *balancer.workers()):
            if pid:
                with contextlib.suppress(ProcessLookupError):  # it has ended with the others
                    os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not with_words(str(program)), lambda: f"all servers have ended: {with_words(str(program))}", SECONDS)
