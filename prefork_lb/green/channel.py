"""A descriptor that is registered with the hub, and who waits for it.

Events and directions are epoll's. What the hub does with a channel, and why, is in `green.hub`.
"""
from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final, Protocol

from greenlet import getcurrent, greenlet

from prefork_lb.green import compiled

if TYPE_CHECKING:
    from prefork_lb.green.hub import Hub

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
HALF_CLOSED: Final = select.EPOLLRDHUP  # the peer will send nothing more
BROKEN: Final = select.EPOLLHUP | select.EPOLLERR  # both sides have ended, or a reset
READABLE: Final = READ | HALF_CLOSED | BROKEN
WRITABLE: Final = WRITE | BROKEN
NEVER: Final = float("inf")


class Owner(Protocol):
    """Gets the events of a channel while no greenlet waits for it. The hub calls its methods, so they must not wait."""

    def on_events(self, events: int) -> None:
        """These events came."""

    def on_deadline(self) -> None:
        """The channel's deadline has passed."""


class SocketLike(Protocol):
    """A socket, as far as the hub is concerned."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class _Attributes:
    """Of a channel. `native/channel.h` has the same."""

    __slots__ = ("deadline", "descriptor", "hub", "looked_at", "owner", "reader", "ready", "writer")

    def __init__(self, hub: Hub, descriptor: int) -> None:
        self.hub = hub
        self.descriptor = descriptor  # -1 after the end
        self.ready = 0  # events that came and are not yet used up
        self.reader: greenlet | None = None
        self.writer: greenlet | None = None
        self.owner: Owner | None = None
        self.deadline = NEVER  # of the present wait
        self.looked_at = NEVER  # when the timers check the deadline next; NEVER: no entry
        hub.register(self)  # type: ignore[arg-type]  # it is a Channel


if not TYPE_CHECKING and compiled.loop is not None:
    _Attributes = compiled.loop.Channel


class Channel(_Attributes):
    """A registered descriptor, and the greenlets that wait for it."""

    __slots__ = ()

    def wait_readable(self, deadline: float) -> bool:
        """Wait until something can be received; False when the deadline came first."""
        hub = self.hub
        hub.arm(self, deadline)
        self.reader = getcurrent()
        return hub.switch() is not None

    def wait_writable(self, deadline: float) -> bool:
        """Wait until something can be sent; False when the deadline came first."""
        self.hub.arm(self, deadline)
        self.writer = getcurrent()
        return self.hub.switch() is not None

    def wait_either(self, other: Channel, deadline: float) -> bool:
        """Wait until something can be received from this channel or from the other; False when the deadline came first."""
        self.hub.arm(self, deadline)
        other.deadline = deadline  # not that of its last wait
        self.reader = other.reader = getcurrent()
        try:
            return self.hub.switch() is not None
        finally:
            self.reader = other.reader = None

    def wait_writable_or(self, other: Channel, deadline: float) -> bool:
        """Wait until something can be sent to this channel, or received from the other; False when the deadline came first."""
        self.hub.arm(self, deadline)
        other.deadline = deadline  # not that of its last wait
        self.writer = other.reader = getcurrent()
        try:
            return self.hub.switch() is not None
        finally:
            self.writer = other.reader = None

    def wait_for_answer_or_room(self, deadline: float) -> bool:
        """Wait until something can be received or sent; False when the deadline came first."""
        self.hub.arm(self, deadline)
        self.reader = self.writer = getcurrent()
        return self.hub.switch() is not None

    def break_off(self) -> None:
        """Resume the greenlets that wait for this channel, as if an event had come. Called in the hub."""
        self.resume(self)

    def resume(self, result: Channel | None) -> bool:
        """Resume the greenlets that wait for this channel, with the result of their wait; None: the deadline came first. Return
        whether there was one. Called in the hub."""
        reader, writer = self.reader, self.writer
        self.reader = self.writer = None
        if reader is not None:
            reader.switch(result)
        if writer is not None and writer is not reader:
            writer.switch(result)
        return reader is not None or writer is not None
