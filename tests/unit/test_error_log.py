"""The error log as JSON."""
from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import pytest

from prefork_lb.error_log import JSONFormatter


def formatted(message: str, *arguments: object, exc_info: Any = None) -> dict[str, Any]:
    record = logging.LogRecord("prefork_lb", logging.WARNING, __file__, 1, message, arguments, exc_info)
    record.created = 1764480000.0625
    line = JSONFormatter().format(record)
    assert line.isprintable() and line.isascii()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_message_and_when_it_was_said() -> None:
    assert formatted("worker %d: \x1b[2J\n☃", 7) == {
        "time": "2025-11-30T05:20:00.062Z", "level": "warning", "pid": os.getpid(), "message": "worker 7: \x1b[2J\n☃"}


@pytest.mark.parametrize(("message", "place"), [
    ("pool web: server 127.0.0.1:8001: GET failed: connect", ("web", "127.0.0.1:8001")),
    ("pool web: panic", ("web", None)), ("the pool web: server a: x", (None, None)),
    ("pool a.b: server unix:/run/x: up", ("a.b", "unix:/run/x")),
])
def test_the_pool_and_the_server_that_it_is_about(message: str, place: tuple[str | None, str | None]) -> None:
    found = formatted(message)
    assert (found.get("pool"), found.get("server")) == place


def test_a_traceback_stays_in_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        found = formatted("a defect", exc_info=sys.exc_info())
    assert found["traceback"].endswith("ValueError: broken")
