"""The interface of a stream. The engine uses only this interface, so it runs on any front end."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class StreamTimeout(Exception):
    """Nothing moved within the time given."""


class StreamClosed(Exception):
    """The peer, or the network, ended the connection."""


class Unneeded(Exception):
    """A connection was not needed any more before it was made."""


class Watched(Protocol):
    """The other side, usually the client, which may leave while the caller waits for a stream."""

    waiting: object
    """The stream that the caller waits for, set by streams whose wait can be ended at once; else None."""

    def is_gone(self) -> bool:
        """Whether the other side has left. Does not wait."""


class ReceiveStream(Protocol):
    """The receiving half of a connection. All times are seconds."""

    def receive(self, limit: int, timeout_s: float) -> bytes:
        """Some bytes, at most `limit`; empty when the peer ended its side. Raises StreamTimeout, StreamClosed."""

    def receive_now(self, limit: int) -> bytes | None:
        """The bytes that have arrived, at most `limit`, without waiting; empty when the peer ended its side, None when none have.

        Raises StreamClosed.
        """

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        """Like `receive`, but ends with None when `watched` is gone before anything came."""


class Stream(ReceiveStream, Protocol):
    """A connection. All times are seconds."""

    def send(self, data: bytes, timeout_s: float) -> bool:
        """Send all of `data`. Returns whether it was sent without a wait, as far as known. Raises StreamTimeout, StreamClosed."""

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
        """Send until all is sent or the peer has sent something. Returns how many bytes were sent."""

    def fileno(self) -> int:
        """The descriptor, for a wait together with other streams."""

    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing waits to be received, without waiting."""

    def close(self) -> None:
        """End the connection. Calling it again does nothing."""


WaitAny = Callable[[Sequence[Stream], float, Watched], Stream | None]
"""Wait for the first of several streams that has data to receive or has ended. None when the watched side has left.

The time is in seconds. Raises StreamTimeout.
"""
