"""Bytes that go from one socket to another inside the kernel.

Facts of the world and what they force on us:

- splice(2) moves references to the pages of a socket's queue into a pipe, and from there to another socket. Nothing is
  copied, and no piece of the body needs memory in this process.
- What the target does not take must not stay in the pipe: the next body would get it. So it is read out. Then one pipe serves all
  connections of a worker, and a slow client holds none.
- A pipe has a slot for a page, and a slot is taken by however little of a page. So a splice may move less than there is, and only
  EAGAIN says that the socket is empty.
"""
from __future__ import annotations

import contextlib
import fcntl
import os
import socket

from prefork_lb.green.channel import READ, READABLE
from prefork_lb.green.streams import GreenStream
from prefork_lb.net.stream import StreamClosed, StreamTimeout, Watched

MOST_BYTES = 512 * 1024
"""What one call moves at most."""
_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0)  # of the pipe; the sockets do not block anyway


class Pipe:
    """The pipe of a worker. It is empty between two calls."""

    def __init__(self) -> None:
        self._reader = self._writer = -1
        self._is_refused = False  # bodies are copied

    def pass_on(self, source: GreenStream, target: GreenStream, timeout_s: float, watched: Watched, limit: int,
                ) -> tuple[int, bytes] | None:
        """Move the next bytes from one plain stream to another, at most `limit`. Waits for them as `GreenStream.receive_or`.

        Return their number, and those that the target has not taken: to be sent as usual, also where the target is broken. The
        number is 0 when the source's peer ended its side; None: `watched` is gone. Raises StreamTimeout and StreamClosed, both of
        the source.
        """
        hub = source.hub
        if source.ready & READABLE:
            hub.turns.share()
        deadline = hub.now + timeout_s
        while True:
            if source.ready & READABLE:
                moved = self._move(source, target, min(limit, MOST_BYTES))
                if moved is not None:
                    return moved
            if source.descriptor < 0:
                raise StreamClosed("closed on this side")
            if watched.is_gone():
                return None
            watched.waiting = source
            in_time = source.wait_readable(deadline)
            source.reader = watched.waiting = None
            if not in_time:
                raise StreamTimeout

    def _move(self, source: GreenStream, target: GreenStream, limit: int) -> tuple[int, bytes] | None:
        if self._reader < 0 and not self._open():
            data = source.receive_now(limit)
            return None if data is None else (len(data), data)
        try:
            count = os.splice(source.descriptor, self._writer, limit, flags=_FLAGS)
        except BlockingIOError:
            source.ready &= ~READ
            return None
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc
        left = count
        with contextlib.suppress(OSError):  # the target takes no more now, or is broken
            while left:
                left -= os.splice(self._reader, target.descriptor, left, flags=_FLAGS)
        return count, os.read(self._reader, left) if left else b""

    def _open(self) -> bool:
        """Make the pipe, and try it. Return whether it works."""
        if self._is_refused:
            return False
        try:
            self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, MOST_BYTES)
            one, other = socket.socketpair()
            with one, other:
                one.send(b"x")
                os.splice(other.fileno(), self._writer, 1, flags=_FLAGS)
                os.splice(self._reader, other.fileno(), 1, flags=_FLAGS)
        except (OSError, AttributeError):
            # No descriptor is left, the user has too many large pipes, or something between us and the kernel forbids splice(2).
            self._is_refused = True
            self.close()
        return not self._is_refused

    def close(self) -> None:
        """Close the pipe."""
        if self._reader >= 0:
            os.close(self._reader)
            os.close(self._writer)
            self._reader = self._writer = -1
