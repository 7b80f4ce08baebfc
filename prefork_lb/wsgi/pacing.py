"""A response's body as WSGI iterates it, for a client whose route limits its bandwidth. It holds its thread, or greenlet."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from prefork_lb.clock import Clock
from prefork_lb.proxy.pacing import Pace
from prefork_lb.routing.serving import Bandwidth


class ReplyBody(Iterator[bytes], Protocol):
    """The body of a reply; an empty piece makes gunicorn send the head."""

    def close(self) -> None: ...


class PacedBody:
    """The same body in pieces, each when its time has come."""

    def __init__(self, body: ReplyBody, bandwidth: Bandwidth, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._body = body
        self._pace = Pace(bandwidth, clock())
        self._clock, self._sleep = clock, sleep
        self._waiting = memoryview(b"")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._waiting:
            self._waiting = memoryview(next(self._body))
            if not self._waiting:
                return b""
        wanted = len(self._waiting)
        while not (count := self._pace.most(wanted, self._clock())):
            self._sleep(self._pace.wait_s(wanted))
        self._pace.spend(count)
        piece, self._waiting = self._waiting[:count], self._waiting[count:]
        return bytes(piece)

    def close(self) -> None:
        self._body.close()
