"""Housekeeping goes on whatever one look came to."""
from __future__ import annotations

import logging
import threading

import pytest

from prefork_lb.upstream.housekeeping import INTERVAL_S, Housekeeping


def test_it_looks_again_and_again_until_it_is_stopped() -> None:
    looked = threading.Semaphore(0)
    housekeeping = Housekeeping(looked.release, interval_s=0.001)
    housekeeping.start()
    for _ in range(3):
        assert looked.acquire(timeout=5)
    housekeeping.stop()
    while looked.acquire(blocking=False):
        pass
    assert not looked.acquire(timeout=0.05), "it looked after it was stopped"


def test_a_look_that_fails_is_logged_and_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    looked = threading.Semaphore(0)

    def look() -> None:
        looked.release()
        raise RuntimeError("no /proc today")

    housekeeping = Housekeeping(look, interval_s=0.001)
    with caplog.at_level(logging.ERROR, logger="prefork_lb"):
        housekeeping.start()
        for _ in range(3):
            assert looked.acquire(timeout=5)
        housekeeping.stop()
    assert len(caplog.records) >= 3
    assert caplog.records[0].getMessage() == "housekeeping failed; it goes on in 0.001 s"
    assert caplog.records[0].exc_info is not None and "no /proc today" in str(caplog.records[0].exc_info[1])


def test_the_claims_of_the_dead_come_back_within_a_second_at_the_default_interval() -> None:
    assert INTERVAL_S <= 0.5
