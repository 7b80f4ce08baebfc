"""Kept-alive connections to one server that no exchange uses at the moment."""
from __future__ import annotations

import contextlib
import logging
from collections import deque
from typing import Final

from prefork_lb.clock import Clock
from prefork_lb.log_summary import summary
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout

OUT_OF_STEP: Final = "server %s sent something on a connection without a request; the connection is closed"
_LOOK_S: Final = 0.001  # for what is known to be there; 0 would be no limit to a blocking socket


class IdleConnections:
    """A bounded stack: the connection used last is used next, so that the surplus grows old and is closed.

    Several threads use it at once; every step is one operation of a deque.
    """

    def __init__(self, most: int, seconds: float, clock: Clock, server: str = "") -> None:
        """Keep at most `most` connections to `server` (its name in the log), none idle for longer than `seconds`."""
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._server = server
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
            # A readable idle connection is closed or out of step: a request written to it would vanish without an answer, or
            # get one that was meant for another request.
            if self._clock() - since <= self._seconds:
                if stream.is_quiet():
                    return stream
                if self._has_spoken(stream):
                    summary.tell(logging.WARNING, ("out of step", self._server), OUT_OF_STEP, self._server)
            stream.close()

    @staticmethod
    def _has_spoken(stream: Stream) -> bool:
        """Whether a connection that is not quiet has data, such as a second response; else its end has come."""
        try:
            return bool(stream.receive(1, _LOOK_S))
        except (StreamClosed, StreamTimeout):
            return False

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
        # Another thread may take the last connection at any moment, so an index that was there a moment ago may be gone.
        with contextlib.suppress(IndexError):
            while self._idle[0][0] < limit:
                self._close_oldest()

    def end(self) -> None:
        """Close all, and keep no more."""
        self._most = 0
        self.close()

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
