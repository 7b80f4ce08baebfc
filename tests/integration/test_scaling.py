"""A pool that starts its servers itself, from none over a surge to none again, without a failed request."""
from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.support import slow_app
from tests.support.balancer import PROXY, Balancer
from tests.support.client import fetch
from tests.support.instances import usable
from tests.support.load import Load
from tests.support.processes import with_words
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


def test_servers_come_with_the_load_and_go_with_it(tmp_path: Path) -> None:
    with Balancer(tmp_path, CONFIGURATION, PROXY, workers=2) as balancer:
        assert usable(balancer.master) == set()
        # The first request waits in the queue while a server starts.
        assert fetch(balancer.address, timeout=SECONDS).status == 200
        assert balancer.log().count("is started") == 1
        with Load(balancer.address, 12, "/") as load:
            wait_until(lambda: len(usable(balancer.master)) == MOST, lambda: f"{MOST} servers\n{balancer.log()}", SECONDS)
            load.wait_for_successes(100, SECONDS)
            load.stop()
        assert load.failures == []
        with Load(balancer.address, 1, "/", pause_s=0.2) as load:  # while servers go
            wait_until(lambda: len(usable(balancer.master)) == 1, lambda: f"one server\n{balancer.log()}", SECONDS)
            load.stop()
        assert load.failures == []
        wait_until(lambda: not usable(balancer.master) and not with_words(slow_app.__file__),
                   lambda: f"none is left\n{balancer.log()}", SECONDS)
        assert fetch(balancer.address, timeout=SECONDS).status == 200
        # The master ends last: with it, systemd and containers kill what is left.
        assert balancer.process is not None
        balancer.process.send_signal(signal.SIGTERM)
        assert balancer.process.wait(SECONDS) == 0
        assert with_words(slow_app.__file__) == []
