"""Connections that were accepted and have to wait until the worker begins with them, when more come than it can serve.

What is begun goes on first: a TLS handshake and a request take several turns, and each one would wait behind all newcomers.
The newest is let in first and the oldest is refused when it has waited for too long: of those who come at several times the
capacity somebody has to go unserved, and it should be those who have given up or will (adaptive LIFO, as in Maurer, "Fail at
Scale", ACM Queue 13, 2015).
"""
from __future__ import annotations

from collections import deque

from prefork_lb.clock import Clock, monotonic
from prefork_lb.green.hub import Hub
from prefork_lb.worker.connection import Connection
from prefork_lb.worker.overload import Overload

_A_TURN_S = 0.01  # for beginning with newcomers, before what goes on is looked at again
_NEXT_TURN_S = 0.001


class PendingConnections:
    """Holds the connections of one listening socket."""

    def __init__(self, hub: Hub, overload: Overload, clock: Clock = monotonic) -> None:
        self._hub = hub
        self._overload = overload
        self._clock = clock
        self._waiting: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, connection: Connection) -> None:
        """Let it wait for its turn."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._hub.call_at(self._hub.now, self._next)

    def _next(self) -> None:
        self._hub.after_turns(self._let_in)

    def _let_in(self) -> None:
        waiting, clock = self._waiting, self._clock
        until = clock() + _A_TURN_S
        while waiting and clock() < until:
            connection = waiting.pop()
            if connection.stream.descriptor >= 0:  # else the worker has ended it
                self._hub.run_job(connection.serve)
        while waiting and self._overload.is_too_late(waiting[0].started):
            connection = waiting.popleft()
            if connection.stream.descriptor >= 0:
                self._overload.count_refusal()
                connection.turn_away()
        if waiting:
            self._hub.call_at(self._hub.now + _NEXT_TURN_S, self._next)
