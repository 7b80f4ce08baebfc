"""What a pool knows of sessions, whatever the mode: the server that a request belongs to, and what goes to the client.

A mode works in three steps. `read` finds what the head of a request says of a session. Heads come again, so the result is kept
with the head, and must hold for all requests with these bytes from this client. `find` turns it into a server at the moment of
the request: sessions expire. `settle` is called when a server has answered, and tells the fields that the client gets.
"""
from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.policy import RequestInfo
from prefork_lb.upstream.server import Server
from prefork_lb.wire.head import Index

Pairs = Sequence[tuple[bytes, bytes]]
"""Fields of a response, names and values."""

NOTHING: Pairs = ()

MOST_VALUES = 4
"""Values of one request that are looked at, the first ones. A browser sends one, or one for each path that has a cookie of this
name, the longest path first (RFC 6265 5.4). A head has room for thousands of forged ones, each at the cost of a signature."""


class OnFailure(enum.Enum):
    """What becomes of a request whose server is down, ejected or full."""

    REBALANCE = "rebalance"  # another server is picked, and the session stays with that one
    STRICT = "strict"  # the client gets 503
    WAIT = "wait"  # it waits for its server


@dataclass(frozen=True, slots=True)
class SessionRules:
    """Of a pool."""

    on_failure: OnFailure = OnFailure.REBALANCE
    drain_ms: int = 0  # how long a drained server keeps its sessions; 0: until it is ready again
    keeps_drained: bool = True  # False: it does not keep them at all


class Session:
    """What one request says of its session."""

    __slots__ = ("server", "told")

    def __init__(self, server: Server | None, told: object = None) -> None:
        """`server` is the one that it belongs to; None: there is no session, or none any more. `told` is the mode's own."""
        self.server = server
        self.told = told


class Sticky(Protocol):
    """A mode."""

    rules: SessionRules

    @property
    def cookie(self) -> bytes:
        """The name of the cookie that is the balancer's own, which no server gets; empty: there is none."""

    @property
    def keyed(self) -> KeyedPolicy | None:
        """What leads from a key to a server, and follows the weights that operators set; None: nothing does."""

    def read(self, request: RequestInfo, is_https: bool) -> object:
        """What the head of a request says of a session. `is_https`: the client speaks https."""

    def find(self, told: object) -> Session:
        """The session, by what `read` has found."""

    def replacement(self, session: Session, candidates: Sequence[Server]) -> Server | None:
        """The candidate that gets the session when its own server cannot; None: the pool's policy picks."""

    def settle(self, session: Session, server: Server, answer: Index) -> Pairs:
        """`server` has answered with these fields: note where the session is; the fields that the client gets in addition."""
