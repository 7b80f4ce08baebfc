"""Waiting for a condition with a deadline, instead of sleeping and hoping."""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# Waiting longer costs a test that passes nothing, and a machine may be ten times as slow as the one a test was written on.
PATIENCE_S = 20.0


def wait_until(
    condition: Callable[[], Value], what: str | Callable[[], str], seconds: float = PATIENCE_S, every: float = 0.01
) -> Value:
    """Return the first true value of `condition`.

    Raises AssertionError that names `what` (asked for only then) and shows the last value when none came within
    `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            name = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {name}; last seen: {value!r}")
        time.sleep(every)
