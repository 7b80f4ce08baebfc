"""A steady load in the background: several clients, each request on a new connection, until told to stop."""
from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

from tests.support.client import Address, Truncated, fetch
from tests.support.waiting import PATIENCE_S, wait_until


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered with 200: when (monotonic seconds) and how it ended."""

    at: float
    what: str


class Load:
    """`clients` threads that send one request after another; a context manager.

    Every request has its own connection, so that a worker which ends an idle connection (HUP, TERM) fails none.
    """

    def __init__(
        self, address: Address, clients: int, target: str, *, host: str = "test.example", seed: int = 1,
        pause_s: float = 0.0,
    ) -> None:
        self.succeeded = 0
        self.last_success = 0.0
        self.failures: list[Failure] = []
        self._address, self._target, self._host, self._pause_s = address, target, host, pause_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed + number),), name=f"load-{number}", daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop after the requests that are running."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        hung = [thread.name for thread in self._threads if thread.is_alive()]
        assert not hung, f"clients still waiting for an answer: {hung}"

    def _run(self, rng: random.Random) -> None:
        while not self._stop.is_set():
            try:
                response = fetch(self._address, self._target, fields=[("Host", self._host)])
                problem = "" if response.status == 200 else f"{response.status} {response.body[:80]!r}"
            except (OSError, Truncated) as exc:
                problem = f"{type(exc).__name__}: {exc}"
            now = time.monotonic()
            with self._lock:
                if problem:
                    self.failures.append(Failure(now, problem))
                else:
                    self.succeeded += 1
                    self.last_success = now
            if self._pause_s:
                self._stop.wait(rng.uniform(0, 2 * self._pause_s))

    def wait_for_successes(self, more: int, seconds: float = PATIENCE_S) -> None:
        """Wait until `more` requests than now have succeeded; AssertionError when it stands still."""
        goal = self.succeeded + more
        wait_until(
            lambda: self.succeeded >= goal,
            lambda: f"{more} more successes; {self.succeeded} so far, last failures {self.failures[-3:]}",
            seconds,
        )
