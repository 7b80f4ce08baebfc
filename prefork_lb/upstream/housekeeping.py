"""A task that a worker repeats beside its requests, a few times a second; no request waits for it."""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable

# Claims of a killed worker must be given back within a second.
INTERVAL_S = 0.25

log = logging.getLogger("prefork_lb")


class Housekeeping:
    """Calls `task` at every interval, in a daemon thread (a greenlet under gevent), until `stop`.

    An exception is logged, and the task is called again at the next interval.
    """

    def __init__(self, task: Callable[[], None], interval_s: float = INTERVAL_S) -> None:
        self._task = task
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefork_lb housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self._task()
            except Exception:
                log.exception("housekeeping failed; it goes on in %g s", self._interval_s)
