"""A worker that is just starting hears of the stop, too."""
from __future__ import annotations

import signal
import time

import pytest

from tests.support.balancer import GTHREAD, PROXY, SETTINGS, FrontEnd, pool_text
from tests.support.rig import Rig
from tests.support.waiting import wait_until

# Where the file `slow` is, a worker takes a while until it has handlers of its own; the file `begun` tells that it has begun.
SLOW_START = """
def post_fork(server, worker):
    import os, time
    if os.path.exists("slow"):
        open("begun", "w").close()
        time.sleep(1.5)
"""
GRACEFUL_TIMEOUT_S = 60  # what the stop took


@pytest.mark.parametrize(("front_end", "number"), [(GTHREAD, signal.SIGQUIT), (PROXY, signal.SIGTERM)], ids=str)
def test_a_stop_does_not_wait_for_a_worker_that_was_starting_when_it_came(
    rig: Rig, front_end: FrontEnd, number: signal.Signals
) -> None:
    extra = ["--graceful-timeout", str(GRACEFUL_TIMEOUT_S)]
    balancer = rig.new_balancer(pool_text(rig.origin(1).addresses), front_end, workers=2, extra=extra, settings="settings.py")
    (balancer.folder / "settings.py").write_text(SETTINGS.read_text() + SLOW_START)
    balancer.start()
    (balancer.folder / "slow").touch()
    balancer.kill_worker(balancer.workers()[0])
    wait_until((balancer.folder / "begun").exists, "a new worker has begun", every=0.001)
    begin = time.monotonic()
    assert balancer.process is not None
    balancer.process.send_signal(number)
    assert balancer.process.wait(GRACEFUL_TIMEOUT_S) == 0
    assert time.monotonic() - begin < GRACEFUL_TIMEOUT_S / 2
