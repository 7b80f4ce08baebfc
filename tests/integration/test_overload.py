"""More than a worker can do."""
from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Connection, Truncated, fetch
from tests.support.rig import Rig
from tests.support.waiting import wait_until

pytestmark = pytest.mark.alone

SLOW = '''
import time

class Slow:
    """Blocks the worker: each request costs a twentieth of a second."""

    def __init__(self, rng, memory):
        pass

    def pick(self, candidates, request):
        if b"quick" not in request.target:
            time.sleep(0.05)
        return candidates[0]
'''


class Clients:
    """Kept connections, each with one request after another; a context manager."""

    def __init__(self, balancer: Balancer, count: int, target: str) -> None:
        self.seen: list[tuple[int, str | None]] = []
        self.failures: list[str] = []
        self._address, self._target = balancer.address, target
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a client hangs"

    def _run(self) -> None:
        try:
            with Connection(self._address, 30) as connection:
                while not self._stop.is_set():
                    response = connection.request(self._target)
                    self.seen.append((response.status, response.value("Retry-After")))
        except (OSError, Truncated) as exc:
            self.failures.append(f"{type(exc).__name__}: {exc}")


def start(rig: Rig, folder: Path, lag: float) -> Balancer:
    (folder / "slow_policy.py").write_text(SLOW)
    text = f"[proxy.limits]\nlag = {lag}\n" + pool_text(rig.origin(1).addresses, "slow_policy:Slow")
    return rig.balancer(text, PROXY, workers=1, environ={"PYTHONPATH": str(folder)})


def test_what_waits_too_long_is_refused_with_retry_after_until_it_is_over(rig: Rig, tmp_path: Path) -> None:
    balancer = start(rig, tmp_path, lag=0.3)
    # Where the machine is busy, clients and origin fall into step: all send, all wait for answers, and the loop has a rest. It
    # lags for as long as all clients' requests take, 5 s here, and an overload has to last for a second and three rounds.
    with Clients(balancer, 100, "/") as clients:
        wait_until(lambda: (503, "1") in clients.seen, lambda: f"some are refused: {clients.seen[-5:]}", 20)
        answered = sum(status == 200 for status, _ in clients.seen)
        wait_until(lambda: sum(status == 200 for status, _ in clients.seen) > answered + 20, "others are served all the same", 20)
    assert clients.failures == [] and {status for status, _ in clients.seen} == {200, 503}
    assert "overload: the loop lags" in balancer.log()
    wait_until(lambda: "the loop lags no more" in balancer.log(), "it is over")
    assert fetch(balancer.address).status == 200
    assert balancer.wait_until_idle().is_idle


def test_without_a_limit_all_are_served_late(rig: Rig, tmp_path: Path) -> None:
    balancer = start(rig, tmp_path, lag=0)
    with Clients(balancer, 40, "/") as clients:
        wait_until(lambda: len(clients.seen) > 100, "they are served", 30)
    assert {status for status, _ in clients.seen} == {200}


def test_a_stall_is_no_overload(rig: Rig, tmp_path: Path) -> None:
    balancer = start(rig, tmp_path, lag=0.5)  # what the ten clients do is far from that
    with Clients(balancer, 10, "/?quick") as clients:
        wait_until(lambda: len(clients.seen) > 100, "they are served")
        os.kill(balancer.workers()[0], signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(balancer.workers()[0], signal.SIGCONT)
        before = len(clients.seen)
        wait_until(lambda: len(clients.seen) > before + 200, "they go on")
    assert clients.failures == [] and {status for status, _ in clients.seen} == {200}
    assert "overload" not in balancer.log()
