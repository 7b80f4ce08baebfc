"""A pool that starts its servers itself, from none over a surge to none again, without a failed request."""
from __future__ import annotations

import sys
from pathlib import Path

from tests.support import slow_app
from tests.support.balancer import PROXY, Balancer
from tests.support.client import fetch
from tests.support.instances import instances
from tests.support.load import Load
from tests.support.processes import is_running
from tests.support.waiting import wait_until

SECONDS = 40.0
MOST = 3

CONFIGURATION = f"""
[pools.app.queue]
timeout = {SECONDS:g}
[pools.app.scaling]
command = ["{sys.executable}", "{slow_app.__file__}", "{{address}}"]
min = 0
max = {MOST}
target = 2
stable_window = 1
panic_window = 1
idle = 1
"""


def servers(balancer: Balancer) -> set[str]:
    """Those that get requests."""
    found = next(each for each in instances() if each.master == balancer.master)
    return {server.address for server in found.servers if server.usable}


def processes() -> list[int]:
    """The servers' processes, and those that keep them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if slow_app.__file__.encode() in words and is_running(int(entry.name)):
                found.append(int(entry.name))
    return found


def test_servers_come_with_the_load_and_go_with_it(tmp_path: Path) -> None:
    with Balancer(tmp_path, CONFIGURATION, PROXY, workers=2) as balancer:
        assert servers(balancer) == set()
        # The first request waits in the queue while a server starts.
        assert fetch(balancer.address, timeout=SECONDS).status == 200
        assert len(servers(balancer)) == 1
        with Load(balancer.address, 12, "/") as load:
            wait_until(lambda: len(servers(balancer)) == MOST, lambda: f"{MOST} servers\n{balancer.log()}", SECONDS)
            load.wait_for_successes(100, SECONDS)
            load.stop()
        assert load.failures == []
        with Load(balancer.address, 1, "/", pause_s=0.2) as load:  # while servers go
            wait_until(lambda: len(servers(balancer)) == 1, lambda: f"one server\n{balancer.log()}", SECONDS)
            load.stop()
        assert load.failures == []
        wait_until(lambda: not servers(balancer) and not processes(), lambda: f"none is left\n{balancer.log()}", SECONDS)
