"""The queue in front of a pool: requests that wait while every server is at its limit."""
from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from prefork_lb.clock import Clock
from prefork_lb.errors import ClientGone, QueueFull, QueueTimeout
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout, Watched
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.line import Line

MakeStream = Callable[[socket.socket], Stream]
"""What the worker waits for a socket with."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """Of a pool; see config.model.QueueConfig."""

    size: int
    timeout_s: float


class WaitingRequest:
    """One request's place in the queue."""

    __slots__ = ("_bell", "_deadline", "_queue", "ticket")

    def __init__(self, queue: Queue, bell: Stream, ticket: int, deadline: float) -> None:
        self._queue = queue
        self._bell = bell
        self.ticket = ticket
        self._deadline = deadline

    def wait(self, client: Watched) -> None:
        """Wait until the request's turn may have come. Raises QueueTimeout, and ClientGone when nobody waits any more."""
        left_s = self._deadline - self._queue.clock()
        if left_s <= 0:
            raise self._queue.too_late()
        try:
            # Looked at first: a stream may look aside only after a wait, and bells ring more often than that.
            if client.is_gone() or self._bell.receive_or(16, left_s, client) is None:
                raise ClientGone("left while it waited for a server")
        except (StreamTimeout, StreamClosed) as exc:
            raise self._queue.too_late() from exc

    def close(self) -> None:
        """Let go of the bell."""
        self._bell.close()


class Queue:
    """First come, first served, over all workers. A release wakes the first one; newcomers go behind those that wait."""

    def __init__(self, pool: str, line: Line, ledger: Ledger, rules: QueueRules, make_stream: MakeStream, clock: Clock) -> None:
        self.clock = clock
        self._pool = pool
        self._line = line
        self._ledger = ledger
        self._rules = rules
        self._make_stream = make_stream

    @property
    def length(self) -> int:
        """Requests that wait, over all workers."""
        return self._line.length

    def join(self) -> WaitingRequest:
        """Take a place at the end. Takes the ledger's lock; raises QueueFull."""
        full = QueueFull(f"pool {self._pool}: {self._rules.size} requests wait already, which is queue.size")
        if self.length >= self._rules.size:
            with self._ledger.locked():
                self._line.count_refusal()
            raise full
        deadline = self.clock() + self._rules.timeout_s
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            bell.bind("")
            name = bell.getsockname()
            stream = self._make_stream(bell)
        except BaseException:
            bell.close()
            raise
        with self._ledger.locked():
            if self.length < self._rules.size:
                return WaitingRequest(self, stream, self._line.join(int(name[1:], 16) + 1), deadline)
            self._line.count_refusal()
        stream.close()
        raise full

    def is_turn(self, place: WaitingRequest) -> bool:
        """Whether nobody came earlier. The ledger's lock must be held."""
        return self._line.is_first(place.ticket)

    def leave(self, place: WaitingRequest, wake_next: bool) -> None:
        """Give the place up. `wake_next`: there may be room for the next one. Takes the ledger's lock."""
        with self._ledger.locked():
            self._line.leave(place.ticket)
        place.close()
        if wake_next:
            self.wake()

    def wake(self) -> None:
        """Let the first one look whether there is room."""
        if self._line.length:
            self._line.ring()

    def tick(self) -> None:
        """To be called a few times a second: wakes again what was woken by somebody who died over it."""
        self._line.ring_for_own()

    def too_late(self) -> QueueTimeout:
        """The error of a request that has waited long enough."""
        return QueueTimeout(f"pool {self._pool}: no server became free within {self._rules.timeout_s:g} s")

    def close(self) -> None:
        """Let go of the socket that rings."""
        self._line.close()
