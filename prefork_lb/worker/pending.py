"""Accepted connections that wait for the worker to begin with them, when more come than it can serve.

Connections that have begun go first. A TLS handshake and a request take several turns, and each turn would else wait behind all
new connections.

The newest waiting connection begins first, and the oldest is refused when it has waited too long. When clients come at several
times the capacity, some get no answer. It should be those that waited longest: they have given up, or soon will (adaptive LIFO,
as in Maurer, "Fail at Scale", ACM Queue 13, 2015).
"""
from __future__ import annotations

from collections import deque

from prefork_lb.clock import Clock, monotonic
from prefork_lb.green.hub import Hub
from prefork_lb.worker.connection import Connection
from prefork_lb.worker.overload import Overload

_A_TURN_S = 0.01  # for new connections, before those that have begun go on
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
        """Let the connection wait for its turn."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._hub.call_at(self._hub.now, self._next)

    def _next(self) -> None:
        self._hub.turns.after(self._let_in)

    def _let_in(self) -> None:
        waiting, clock = self._waiting, self._clock
        until = clock() + _A_TURN_S
        while waiting and clock() < until:
            connection = waiting.pop()
            if connection.stream.descriptor >= 0:  # else it was closed meanwhile
                self._hub.run_job(connection.serve)
        while waiting and self._overload.is_too_late(waiting[0].started):
            connection = waiting.popleft()
            if connection.stream.descriptor >= 0:
                self._overload.count_refusal()
                connection.turn_away()
        if waiting:
            self._hub.call_at(self._hub.now + _NEXT_TURN_S, self._next)
