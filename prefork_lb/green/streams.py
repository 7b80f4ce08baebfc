"""Streams that let other greenlets run while they wait.

Facts of the world and what they force on us:

- epoll reports an edge once (see `green.hub`). So a receive clears READ in `ready` only when it has emptied the socket.
- A read that returns less than was asked for has emptied the socket (epoll(7)). A full read says nothing about what is left.
- The end of the peer's side may come in the same event as its last bytes, and no second event follows. So after an
  end a short read clears nothing: the next receive returns what is left, then b"".
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Sequence
from typing import TYPE_CHECKING

from greenlet import getcurrent

from prefork_lb.green import compiled
from prefork_lb.green.channel import BROKEN, HALF_CLOSED, READ, READABLE, Channel
from prefork_lb.green.hub import Hub
from prefork_lb.net.readable import Readable
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout, Watched

ENDED = HALF_CLOSED | BROKEN
"""In `ready`: the peer has ended its side, or the connection is lost."""
_LINGER_0, _LINGER_OFF = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)  # socket(7)
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket that does not block raises, plain or over TLS."""


class HubStream(Channel):
    """A connected, non-blocking socket: a Stream for its users, a Channel for the hub."""

    __slots__ = ("_connected",)
    is_plain = True  # what its socket carries are the bytes themselves

    def __init__(self, hub: Hub, connected: socket.SocketType | int) -> None:
        """`connected`: the socket, or its descriptor, which is the stream's from then on."""
        if isinstance(connected, int):
            self._connected: socket.SocketType | None = None
            super().__init__(hub, connected)
        else:
            self._connected = connected
            super().__init__(hub, connected.fileno())

    @property
    def connected(self) -> socket.SocketType:
        """The socket. Where only its descriptor is known an object is made, which costs a system call.

        Raises OSError when the stream is closed.
        """
        if self._connected is None:
            if self.descriptor < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._connected = socket.SocketType(-1, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, self.descriptor)
        return self._connected

    def fileno(self) -> int:
        return self.descriptor

    def receive_now(self, limit: int) -> bytes | None:
        """What is there, at most `limit` bytes; empty at the end of the peer's side, None when nothing is there.

        Raises StreamClosed.
        """
        try:
            data = self.connected.recv(limit)
        except BlockingIOError:
            self.ready &= ~READ
            return None
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc
        # A short read has emptied the socket (epoll(7)): the next byte is a new edge. After the peer's end no edge will come.
        if len(data) < limit and not self.ready & ENDED:
            self.ready &= ~READ
        return data

    def receive(self, limit: int, timeout_s: float) -> bytes:
        hub = self.hub
        if self.ready & READABLE:
            hub.turns.share()  # with a fast peer this greenlet would never wait
        deadline = hub.now + timeout_s
        while True:
            if self.ready & READABLE:
                data = self.receive_now(limit)
                if data is not None:
                    return data
            if self.descriptor < 0:
                raise StreamClosed("closed on this side")
            if not self.wait_readable(deadline):
                raise StreamTimeout

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        hub = self.hub
        if self.ready & READABLE:
            hub.turns.share()
        deadline = hub.now + timeout_s
        while True:
            if self.ready & READABLE:
                data = self.receive_now(limit)
                if data is not None:
                    return data
            if watched.is_gone():  # checked before the wait: the client's end may be old, and makes no new event
                return None
            # `wait_readable` inlined, for speed: every request over TLS passes here.
            if deadline < self.looked_at:
                hub.arm(self, deadline)
            else:
                self.deadline = deadline
            self.reader = getcurrent()
            watched.waiting = self
            in_time = hub.switch()
            self.reader = watched.waiting = None
            if in_time is None:
                raise StreamTimeout

    def send(self, data: bytes, timeout_s: float) -> bool:
        try:
            sent = self.connected.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc
        if sent == len(data):
            return True
        self._send_rest(data, sent, timeout_s)
        return False

    def send_last(self, data: bytes, timeout_s: float) -> bool:
        """As `send`, when `close` comes next. In C the bytes leave with this side's end, in one packet: the peer wakes once."""
        return self.send(data, timeout_s)

    def send_now(self, data: bytes) -> int:
        """Send what the peer takes without a wait; the number of bytes. Raises StreamClosed."""
        try:
            return self.connected.send(data)
        except WOULD_BLOCK:
            return 0
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc

    def _send_rest(self, data: bytes, sent: int, timeout_s: float) -> None:
        with memoryview(data) as view:
            while sent < len(data):
                # The kernel reports a socket as writable when a third of its buffer is free. That may be megabytes, and a slow
                # peer needs long for them. So a peer counts as stalled only when it has acknowledged nothing meanwhile.
                waiting = self.unacknowledged()
                if not self.wait_writable(self.hub.now + timeout_s) and self.unacknowledged() >= waiting:
                    raise StreamTimeout
                self._check_open()
                sent += self._send_some(view[sent:])

    def _check_open(self) -> None:
        """After a wait: another greenlet may have closed the stream. Its socket stays open until the end of the round."""
        if self.descriptor < 0:
            raise StreamClosed("closed on this side")

    def unacknowledged(self) -> int:
        """Bytes that were sent and that the peer has not acknowledged yet. The stream is open."""
        try:
            return int.from_bytes(fcntl.ioctl(self.descriptor, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
        except OSError:
            return 0  # closed meanwhile: the next send raises

    def _send_some(self, view: memoryview) -> int:
        try:
            return self.connected.send(view)
        except WOULD_BLOCK:
            return 0
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
        sent = 0
        with memoryview(data) as view:
            while sent < len(data) and not self.has_input():
                count = self._send_some(view[sent:])
                sent += count
                if not count and not self.wait_for_answer_or_room(self.hub.now + timeout_s):
                    raise StreamTimeout
                self._check_open()
        return sent

    def has_input(self) -> bool:
        """Whether something waits to be received, or the peer has ended its side."""
        ready = self.ready & READABLE
        if ready != READ:
            return bool(ready)
        # READ may be stale: a full read does not show whether more bytes wait.
        try:
            self.connected.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self.ready &= ~READ
            return False
        except OSError:
            pass  # an error ends the stream as well
        return True

    def is_quiet(self) -> bool:
        return self.descriptor >= 0 and not self.has_input()

    def shut_down(self) -> None:
        """End this side. The peer sees the end; what the peer still sends can be received."""
        with contextlib.suppress(OSError):  # the peer has gone, so this side has ended already
            self.connected.shutdown(socket.SHUT_WR)

    def reset_at_close(self, resets: bool) -> None:
        """Whether a close of the socket is a reset (TCP): the peer cannot take it for an ordinary end.

        The kernel obeys this whenever it closes the socket, also after a SIGKILL of the worker.
        """
        with contextlib.suppress(OSError):  # the peer has gone
            if self.connected.family != socket.AF_UNIX:
                self.connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0 if resets else _LINGER_OFF)

    def reset(self) -> None:
        """End the connection so that the peer cannot take it for an ordinary end."""
        self.reset_at_close(True)
        self.close()

    def close(self) -> None:
        self.owner = None
        self.hub.end(self, self._connected)

    def detach(self) -> socket.SocketType:
        """Hand over the open socket. This stream must not be used afterwards."""
        self.owner = None
        connected = self.connected
        self.hub.forget(self)
        return connected


class GreenStream(HubStream):
    """A stream whose bytes go through the socket as they are."""

    __slots__ = ()

    if not TYPE_CHECKING and compiled.loop is not None:
        receive_now, receive_or = compiled.loop.Channel.receive_now, compiled.loop.Channel.receive_or
        send, send_last, send_now = compiled.loop.Channel.send, compiled.loop.Channel.send_last, compiled.loop.Channel.send_now
        has_input, is_quiet = compiled.loop.Channel.has_input, compiled.loop.Channel.is_quiet
        compiled.loop.use(StreamClosed, StreamTimeout, getcurrent)


def wait_any(streams: Sequence[Stream], timeout_s: float, watched: Watched) -> Stream | None:
    """`net.stream.WaitAny` for green streams."""
    waited = [stream for stream in streams if isinstance(stream, GreenStream)]
    hub = waited[0].hub
    deadline = hub.now + timeout_s
    while True:
        for stream in waited:
            if not stream.is_quiet():
                return stream
        if watched.is_gone():
            return None
        for stream in waited:
            hub.arm(stream, deadline)
            stream.reader = getcurrent()
        watched.waiting = waited[0]
        in_time = hub.switch()
        watched.waiting = None
        for stream in waited:
            stream.reader = None
        if in_time is None:
            # The hub has looked at the stream whose timer this was. The events of the others may be behind those of this round.
            for stream in waited:
                if Readable(stream.descriptor, READ | HALF_CLOSED).now():
                    stream.ready |= READ
                    if not stream.is_quiet():
                        return stream
            raise StreamTimeout
