"""Work that goes on beside the requests of a worker, and ends by itself."""
from __future__ import annotations

import _thread
import logging
from collections.abc import Callable

log = logging.getLogger("prefork_lb")

Aside = Callable[[Callable[[], None]], None]
"""Runs a job soon, beside the caller, who does not wait for it. An exception is logged."""


def in_a_thread(job: Callable[[], None]) -> None:
    """An `Aside`: in a thread, or a greenlet where gevent has replaced threads. It does not keep the process from ending."""
    # Looked up at each call: gevent replaces it. `threading.Thread` would wait until the new thread runs.
    _thread.start_new_thread(_run, (job,))


def _run(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception:
        log.exception("internal error")
