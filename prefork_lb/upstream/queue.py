"""The queue in front of a pool: requests that wait while every server is at its limit."""
from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from prefork_lb.clock import Clock
from prefork_lb.errors import ClientGone, OutOfDescriptors, QueueFull, QueueTimeout
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout, Watched
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.waiting_line import WaitingLine

MakeStream = Callable[[socket.socket], Stream]
"""Makes the stream by which the worker waits for a socket."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """Of a pool; see config.pool.QueueConfig."""

    size: int
    timeout_s: float


class WaitingRequest:
    """One request's place in the queue."""

    __slots__ = ("_bell", "_deadline", "_queue", "began", "ticket")

    def __init__(self, queue: Queue, bell: Stream, ticket: int, began: float, deadline: float) -> None:
        self._queue = queue
        self._bell = bell
        self.ticket = ticket
        self.began = began
        self._deadline = deadline

    def wait(self, client: Watched) -> None:
        """Wait until the request's turn may have come. Raises QueueTimeout, and ClientGone when the client has left."""
        left_s = self._deadline - self._queue.clock()
        if left_s <= 0:
            raise self._queue.too_late()
        try:
            # First a look at the client: some streams look at it only when a wait has taken a while, and bells ring more often.
            if client.is_gone() or self._bell.receive_or(16, left_s, client) is None:
                raise ClientGone("left while it waited for a server")
        except (StreamTimeout, StreamClosed) as exc:
            raise self._queue.too_late() from exc

    def close(self) -> None:
        """Let go of the bell."""
        self._bell.close()


class Queue:
    """First come, first served, over all workers. A release wakes the first request; newcomers go behind those that wait.

    Requests of a worker that does not run are passed over (`shared.waiting_line`).
    """

    def __init__(self, pool: str, line: WaitingLine, ledger: Ledger, rules: QueueRules, make_stream: MakeStream,
                 clock: Clock) -> None:
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

    def deadline(self) -> float:
        """Until when a request may wait that begins now."""
        return self.clock() + self._rules.timeout_s

    def join(self, deadline: float) -> WaitingRequest:
        """Take a place at the end. Takes the ledger's lock; raises QueueFull, OutOfDescriptors."""
        full = QueueFull(f"pool {self._pool}: {self._rules.size} requests wait already, which is queue.size")
        if self._is_full():
            with self._ledger.locked():
                self._line.count_refusal()
            raise full
        bell = self._make_bell()
        try:
            bell.bind("")
            name = bell.getsockname()
            stream = self._make_stream(bell)
        except BaseException:
            bell.close()
            raise
        with self._ledger.locked():
            if not self._is_full():
                ticket = self._line.join(int(name[1:], 16) + 1, int(deadline * 1000))
                return WaitingRequest(self, stream, ticket, self.clock(), deadline)
            self._line.count_refusal()
        stream.close()
        raise full

    def _is_full(self) -> bool:
        # Requests of a worker that does not run do not count: a stopped worker would close the queue to its siblings. To leave
        # them out costs a look into each worker's row, so it comes second.
        size = self._rules.size
        return self.length >= size and self._line.answering >= size

    def _make_bell(self) -> socket.socket:
        try:
            return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as exc:
            raise OutOfDescriptors(f"pool {self._pool}: no socket to wait in the queue with: {exc.strerror}") from exc

    def is_turn(self, place: WaitingRequest) -> bool:
        """Whether no request that came earlier may still take its turn. The ledger's lock must be held."""
        return self._line.is_first(place.ticket)

    def leave(self, place: WaitingRequest) -> float:
        """Give the place up; for how long the request has waited, in seconds. Takes the ledger's lock."""
        with self._ledger.locked():
            waited_s = self.clock() - place.began
            self._line.leave(place.ticket, waited_s)
        place.close()
        return waited_s

    @property
    def is_answered(self) -> bool:
        """Whether a request waits whose worker runs. The ledger's lock must be held."""
        return self._line.is_answered

    def wake(self) -> None:
        """Let the first request look whether a server is free."""
        if self._line.length:
            self._line.ring()

    def tick(self) -> None:
        """Show the siblings that this worker runs, and ring again in case a ring was lost. To be called a few times a second."""
        self._line.tick()

    def too_late(self) -> QueueTimeout:
        """The error of a request that waited for as long as it may."""
        return QueueTimeout(f"pool {self._pool}: no server became free within {self._rules.timeout_s:g} s")

    def close(self) -> None:
        """Let go of the socket that rings."""
        self._line.close()
