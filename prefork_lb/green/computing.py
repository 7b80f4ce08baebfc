"""Functions that compute for long, in threads beside the hub's."""
from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from prefork_lb.green.event import OneShotEvent
from prefork_lb.green.hub import Hub

_MOST_THREADS = 2  # beside that of the hub, which they must leave something of the processor


class Computing:
    """Runs functions for greenlets, a few at a time. Its threads are started when they are needed, and end with the process."""

    def __init__(self, hub: Hub, most_threads: int = _MOST_THREADS) -> None:
        self._hub = hub
        self._most_threads = most_threads
        self._threads = 0
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run(self, function: Callable[[], bool]) -> bool:
        """What `function` returns, or raises, in another thread; other greenlets run meanwhile."""
        done = OneShotEvent(self._hub)
        results: list[bool] = []
        failures: list[BaseException] = []

        def job() -> None:
            try:
                results.append(function())
            except BaseException as exc:
                failures.append(exc)
            self._hub.wake(done.set)

        self._start_thread()
        self._jobs.put(job)
        done.wait()
        if failures:
            raise failures[0]
        return results[0]

    def _start_thread(self) -> None:
        if self._threads < self._most_threads:
            try:
                # Daemons: a process that ends does not wait for them.
                threading.Thread(target=self._work, name="prefork_lb computing", daemon=True).start()
            except RuntimeError:  # the system has no more
                if not self._threads:
                    raise
                return
            self._threads += 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()
