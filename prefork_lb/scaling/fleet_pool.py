"""What a fleet needs from outside: the pool that its servers serve in, and checks of those that start."""
from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from prefork_lb.shared.events import EventKind


class PooledServer(NamedTuple):
    """A server of the fleet as the pool sees it."""

    requests: int  # so far
    is_leaving: bool
    is_usable: bool
    is_down: bool = False  # by its active check, while operators leave it alone


class FleetPool(Protocol):
    """The pool that a fleet's servers serve in, without its other servers. Addresses are in the pool's spelling."""

    def seen(self) -> Mapping[str, PooledServer]:
        """The fleet's servers that are in the pool, by address."""

    def add(self, address: str) -> None:
        """Raises SteeringError."""

    def let_go(self, address: str) -> None:
        """Drain it; it is removed when nothing is left on it."""

    def keep(self, address: str) -> None:
        """Take one back that was let go."""

    def remove(self, address: str) -> None:
        """Remove it at once."""

    def tell(self, kind: EventKind, address: str, text: str) -> None:
        """Record an event; with an empty address, one of the pool."""


class Readiness(Protocol):
    """Makes checks in the background, until they pass."""

    def watch(self, addresses: Collection[str]) -> None:
        """Check these, and no others."""

    def is_ready(self, address: str) -> bool:
        """Whether a check has passed since it is watched."""

    def why_not(self, address: str) -> str:
        """What the last check has found, in words."""
