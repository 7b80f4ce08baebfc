"""What balancers share through, as they see it: one exchange at a time, in one round trip."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from prefork_lb.cluster.report import Key
from prefork_lb.errors import PreforkLBError


class StoreError(PreforkLBError):
    """The store cannot be reached, is too slow, or refuses."""


@dataclass(slots=True)
class Sent:
    """What a balancer sends at an exchange, and what it asks for."""

    balancer: str
    report: bytes
    tables: dict[bytes, bytes] = field(default_factory=dict)  # by digest, lists of servers to keep
    wanted_tables: list[bytes] = field(default_factory=list)  # digests
    results: bytes | None = None  # of this balancer's checks, to keep
    results_of: str = ""  # the balancer whose results are asked for
    parts: dict[Key, tuple[int, int]] = field(default_factory=dict)  # of limits, by server: the limit, the part wanted
    sessions: bytes | None = None  # to pass on to all others
    sessions_after: bytes = b""  # those passed on later are asked for; empty: none
    gone: list[str] = field(default_factory=list)  # balancers whose reports are to be removed


@dataclass(slots=True)
class Received:
    """What comes back."""

    now_ms: int  # of the store's clock
    reports: list[bytes]  # of all balancers, this one's too
    tables: dict[bytes, bytes] = field(default_factory=dict)
    results: bytes | None = None
    parts: dict[Key, int] = field(default_factory=dict)  # granted, by server
    sessions: list[tuple[int, bytes]] = field(default_factory=list)  # each message with the time when it was passed on
    sessions_after: bytes = b""  # for the next exchange

    @property
    def size(self) -> int:
        """About the bytes that came."""
        return sum(map(len, self.reports)) + len(self.results or b"") + sum(len(message) for _, message in self.sessions)


class Store(Protocol):
    """Redis or Valkey, or a test's stand-in."""

    def exchange(self, sent: Sent) -> Received:
        """One round trip. Raises StoreError within half a second or so, two in Redis Cluster, where redis-py tries each command
        again; waits no longer for an answer."""

    def leave(self, balancer: str) -> None:
        """This balancer ends in good order: remove its report. Raises StoreError."""
