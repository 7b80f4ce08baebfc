"""A source of servers, as its finder sees it."""
from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from prefork_lb.shared.table import ServerEntry

MOST_BYTES = 4 << 20
MOST_SERVERS = 10_000


class ListError(Exception):
    """There is no list that can be believed; the text says why."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source lists."""

    servers: Mapping[str, ServerEntry]  # by canonical address
    again_s: float  # when to look again


class Source(Protocol):
    """Something that lists servers. One thread uses it."""

    def look(self) -> Listing:
        """The servers that are listed now. May take some seconds. Raises ListError."""

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait so long, or until the list may have changed, or `stop` is set."""

    def close(self) -> None:
        """Let go of what it holds."""
