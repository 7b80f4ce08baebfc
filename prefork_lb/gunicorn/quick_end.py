"""A quick end (SIGQUIT, SIGINT) of gunicorn's gthread worker that cannot deadlock.

gunicorn's handler, from version 23 to 27, calls `ThreadPoolExecutor.shutdown`, which takes the pool's lock. Python runs a signal
handler in the main thread between any two instructions of its own. While the main thread hands a connection to the pool, it holds
that lock itself: the handler then waits for ever, and the master, deaf, for `graceful_timeout`, before it kills the worker.

The worker needs no shutdown of its pool to end: Python itself tells the pool's threads when the main thread is over.
"""
from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from prefork_lb.gunicorn.internals import Worker

_SIGNALS = (signal.SIGQUIT, signal.SIGINT)


def end_without_the_pool(worker: Any) -> None:
    """Replace the handlers of a quick end in a worker that has a pool of threads; others keep theirs."""
    def end(number: int, frame: FrameType | None) -> None:
        Worker.handle_quit(worker, number, frame)

    if not hasattr(worker, "tpool"):
        return
    for number in _SIGNALS:
        # Only gunicorn's own handler. A hook of the site may have set another one.
        if signal.getsignal(number) == worker.handle_quit:
            signal.signal(number, end)
