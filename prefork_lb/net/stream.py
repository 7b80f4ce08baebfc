"""What a stream is. The engine is written once against it and runs on any front end."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class StreamTimeout(Exception):
    """Nothing moved within the time given."""


class StreamClosed(Exception):
    """The peer, or the network, ended the connection."""


class Watched(Protocol):
    """The other side, which may leave while one waits for a stream."""

    waiting: object
    """The stream that is waited for on its behalf, set by streams that can be told to go on at once; else None."""

    def is_gone(self) -> bool:
        """Whether it has left, without waiting."""


class Source(Protocol):
    """What one receives from. All times are seconds."""

    def receive(self, limit: int, timeout_s: float) -> bytes:
        """Some bytes, at most `limit`; empty when the peer ended its side. Raises StreamTimeout, StreamClosed."""

    def receive_now(self, limit: int) -> bytes | None:
        """What is there, at most `limit` bytes; empty at the end of the peer's side, None when nothing is there.

        Raises StreamClosed.
        """

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        """Like `receive`, but ends with None when `watched` is gone before anything came."""


class Stream(Source, Protocol):
    """A connection. All times are seconds."""

    def send(self, data: bytes, timeout_s: float) -> bool:
        """All of `data`; whether it went out without a wait, as far as one can tell. Raises StreamTimeout, StreamClosed."""

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
        """Send until everything is out or the peer has sent something; returns how many bytes went out."""

    def fileno(self) -> int:
        """The descriptor, to wait for it together with another."""

    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing waits to be received, without waiting."""

    def close(self) -> None:
        """End the connection. Calling it again does nothing."""


WaitAny = Callable[[Sequence[Stream], float, Watched], Stream | None]
"""Wait for the first of several streams that has something to receive, or has ended; None when who is watched has left.

The time is in seconds. Raises StreamTimeout.
"""
