"""A ProxyWorker gives a sign of life from its beginning on."""
from __future__ import annotations

import os
import time

from gunicorn.config import Config

from prefork_lb.worker import ProxyWorker


def test_a_worker_that_stands_still_before_its_first_beat_is_seen_to() -> None:
    """gunicorn kills a worker whose last sign of life is older than `timeout` by the monotonic clock."""
    before = time.monotonic()
    worker = ProxyWorker(1, os.getpid(), [], None, 30, Config(), None)
    try:
        assert before - 1 <= worker.tmp.last_update() <= time.monotonic()
    finally:
        worker.tmp.close()
