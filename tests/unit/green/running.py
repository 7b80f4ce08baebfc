"""Runs a function in a greenlet under a hub, until it returns; a stream of the hub with its other end."""
from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream

T = TypeVar("T")
DEADLINE_S = 20.0  # far beyond what anything here takes


def run(hub: Hub, function: Callable[[], T]) -> T:
    """What `function` returns or raises. TimeoutError when it does not come to an end."""
    results: list[T] = []
    failures: list[BaseException] = []

    def job() -> None:
        try:
            results.append(function())
        except BaseException as exc:
            failures.append(exc)
        hub.stop()

    hub.soon(job)
    timer = hub.call_at(hub.now + DEADLINE_S, hub.stop)
    hub.run()
    timer.cancel()
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"not done within {DEADLINE_S:g} s")
    return results[0]


def pair(hub: Hub) -> tuple[GreenStream, socket.socket]:
    """A connection whose first end belongs to the hub."""
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    theirs.settimeout(10)
    return GreenStream(hub, mine), theirs
