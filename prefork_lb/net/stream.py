"""What a stream is. The engine is written once against it and runs on any front end."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class StreamTimeout(Exception):
    """Nothing moved within the time given."""


class StreamClosed(Exception):
    """The peer, or the network, ended the connection."""


class Stream(Protocol):
    """A connection. All times are seconds."""

    def receive(self, limit: int, timeout_s: float) -> bytes:
        """Some bytes, at most `limit`; empty when the peer ended its side. Raises StreamTimeout, StreamClosed."""

    def receive_or(self, limit: int, timeout_s: float, gone: Callable[[], bool]) -> bytes | None:
        """Like `receive`, but watches for something else meanwhile: None as soon as `gone()` is true."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """All of `data`. Raises StreamTimeout, StreamClosed."""

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
        """Send until everything is out or the peer has sent something; returns how many bytes went out."""

    def fileno(self) -> int:
        """The descriptor, to wait for it together with another."""

    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing waits to be received, without waiting."""

    def close(self) -> None:
        """End the connection. Calling it again does nothing."""
