"""The events of a hub, a round at a time: collected from epoll, then told to those that wait.

`native/loop.c` does the same.
"""
from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from prefork_lb.green import compiled
from prefork_lb.green.channel import READABLE, WRITABLE

if TYPE_CHECKING:
    from prefork_lb.green.channel import Channel

Channels = dict[int, "Channel"]
Watchers = dict[int, Callable[[], None]]


class Rounds(Protocol):
    """What `make_rounds` gives."""

    def collect(self, wait_s: float, most: int, /) -> int:
        """Wait for events, at most so many seconds (negative: without end), and keep at most `most` of them: their number."""

    def deliver(self) -> None:
        """Tell the channels and watchers of the events that were collected. What they raise ends it; the rest is lost then."""


class PythonRounds:
    """Rounds in Python."""

    def __init__(self, epoll: select.epoll, channels: Channels, watchers: Watchers) -> None:
        self._poll = epoll.poll
        self._channels, self._watchers = channels, watchers
        self._events: list[tuple[int, int]] = []

    def collect(self, wait_s: float, most: int, /) -> int:
        self._events = self._poll(wait_s, most)
        return len(self._events)

    def deliver(self) -> None:
        events, self._events = self._events, []
        channels, watchers = self._channels, self._watchers
        for descriptor, mask in events:
            channel = channels.get(descriptor)
            if channel is None:
                callback = watchers.get(descriptor)
                if callback is not None:
                    callback()
                continue
            channel.ready |= mask
            if mask & READABLE:
                waiter = channel.reader
                if waiter is not None:
                    channel.reader = None
                    if channel.writer is waiter:
                        channel.writer = None
                    waiter.switch(channel)
                elif channel.owner is not None:
                    channel.owner.on_events(mask)
            if mask & WRITABLE and (waiter := channel.writer) is not None:
                channel.writer = None
                if channel.reader is waiter:
                    channel.reader = None
                waiter.switch(channel)


def make_rounds(epoll: select.epoll, channels: Channels, watchers: Watchers) -> Rounds:
    """The rounds of this epoll, by the dicts of who is registered under which descriptor."""
    loop = compiled.loop
    return PythonRounds(epoll, channels, watchers) if loop is None else loop.Rounds(epoll.fileno(), channels, watchers)
