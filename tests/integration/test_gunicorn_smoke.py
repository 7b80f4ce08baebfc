"""What is taken from gunicorn's internals works: start, reload, kill, upgrade, stop.

`make gunicorns` runs it with the oldest and the newest version.
"""
from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.support import processes
from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import Burst, fetch
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SOON_S = 30.0  # gunicorn waits for twice this, where it waits


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_start_reload_kill_upgrade_and_stop(rig: Rig, front_end: FrontEnd) -> None:
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=2, extra=["--pid", "gunicorn.pid",
                                                                                      "--graceful-timeout", "60"])
    expected = os.environ.get("GUNICORN_VERSION_EXPECTED")
    assert not expected or f"Starting gunicorn {expected}\n" in balancer.log()
    assert "replaced workers end within graceful_timeout" not in balancer.log()
    assert fetch(balancer.address, "/upload", "POST", fields=[("Content-Length", "5")], body=b"01234").status == 200
    chunked = [("Transfer-Encoding", "chunked")]
    assert fetch(balancer.address, "/upload", "POST", fields=chunked, body=b"5\r\n01234\r\n0\r\n\r\n").status == 200
    with origin.released_at_end(), Burst(balancer.address, 4) as held:
        origin.wait_for_in_flight(4)
        first = balancer.workers()
        balancer.reload()
        # The old workers hold requests, and the master is at work all the same.
        victim = next(pid for pid in balancer.workers() if pid not in first)
        balancer.kill_worker(victim)
        wait_until(lambda: len([pid for pid in balancer.workers() if pid not in (*first, victim)]) == 2,
                   lambda: f"a substitute for {victim}\n{balancer.log()}", SOON_S)
        origin.release()
        assert held.statuses() == [200] * 4
    wait_until(lambda: not set(first) & set(balancer.workers()), "the old workers have ended", SOON_S)
    with origin.released_at_end(), Burst(balancer.address, 1 if front_end is PROXY else 0) as held:
        origin.wait_for_in_flight(1 if front_end is PROXY else 0)
        upgrade_and_stop(balancer, origin, held)


def upgrade_and_stop(balancer: Balancer, origin: Origin, held: Burst) -> None:
    """The old master's worker holds a request while both masters end. gunicorn waits for it, and not longer."""
    process = balancer.process
    assert process is not None
    new_pid_file = balancer.folder / "gunicorn.pid.2"
    os.kill(balancer.master, signal.SIGUSR2)
    wait_until(lambda: new_pid_file.exists() and new_pid_file.read_text().strip(), "a new master", SOON_S)
    new = int(new_pid_file.read_text())
    try:
        wait_until(lambda: sum(processes.catches(pid, signal.SIGABRT) for pid in processes.children(new)) >= 2, "its workers",
                   SOON_S)
        os.kill(balancer.master, signal.SIGTERM)
        assert process.wait(SOON_S) == 0
        assert fetch(balancer.address, "/bytes?n=3").status == 200
        workers = processes.children(new)
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not any(map(processes.is_running, workers)), "its workers have ended", SOON_S)
        origin.release()
        assert set(held.statuses()) <= {200}
        wait_until(lambda: not processes.is_running(new), "all have ended", SOON_S)
    finally:
        for pid in (new, *processes.children(new)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
