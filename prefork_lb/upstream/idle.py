"""Kept-alive connections to one server that no exchange uses at the moment."""
from __future__ import annotations

from collections import deque

from prefork_lb.clock import Clock
from prefork_lb.net.stream import Stream


class IdleConnections:
    """A bounded stack: the connection used last is used next, so that the surplus grows old and is closed.

    Several threads use it at once; every step is one operation of a deque.
    """

    def __init__(self, most: int, seconds: float, clock: Clock) -> None:
        """Keep at most `most` connections, none idle for longer than `seconds`."""
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._idle: deque[tuple[float, Stream]] = deque()

    def __len__(self) -> int:
        return len(self._idle)

    def take(self) -> Stream | None:
        """A connection that is open and quiet, or None."""
        while True:
            try:
                since, stream = self._idle.pop()
            except IndexError:
                return None
            # A readable idle connection is closed or out of step: a request written to it would vanish without an answer.
            if self._clock() - since <= self._seconds and stream.is_quiet():
                return stream
            stream.close()

    def put(self, stream: Stream) -> None:
        """Keep a connection whose last response was received whole."""
        if self._most == 0:
            stream.close()
            return
        self._idle.append((self._clock(), stream))
        if len(self._idle) > self._most:
            self._close_oldest()

    def expire(self) -> None:
        """Close what has been idle for too long."""
        limit = self._clock() - self._seconds
        while self._idle and self._idle[0][0] < limit:
            self._close_oldest()

    def close(self) -> None:
        """Close all."""
        while self._idle:
            self._close_oldest()

    def _close_oldest(self) -> None:
        try:
            _, stream = self._idle.popleft()
        except IndexError:  # another thread was faster
            return
        stream.close()
