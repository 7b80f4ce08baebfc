"""How many workers gunicorn runs: at a reload not more than there is room for in shared memory."""
from __future__ import annotations

import logging
import os

from prefork_lb.config.model import Config

log = logging.getLogger("prefork_lb")

_before = 0  # the number of the last configuration; 0: this is the start


def worker_count(config: Config) -> int:
    """How many workers to run.

    The rows in shared memory are made at the start, and at a reload old and new workers both need rows. When a reload asks for
    more workers than the rows allow, the number of before stays in force.
    """
    global _before
    wanted = config.listen.worker_count()
    if _before and wanted > _before:
        most = _most_workers()
        if most and wanted > most:
            log.error("%s: listen.workers: room for %d workers only; %d stay in force; restart gunicorn to make more",
                      config.source, most, _before)
            return _before
    _before = wanted
    return wanted


def _most_workers() -> int:
    """How many workers this master's instance has room for; 0 while there is no instance."""
    from prefork_lb.shared.finding import find
    from prefork_lb.wiring.room import most_workers

    segment = find(os.getpid())
    if segment is None:
        return 0
    try:
        return most_workers(segment.layout)
    finally:
        segment.close()
