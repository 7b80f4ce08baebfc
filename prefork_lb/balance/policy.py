"""What a policy is, and what it may look at.

A policy is pure: it sees candidates (servers already filtered: usable, not full, not tried in this exchange), the
request, and a small memory that all workers share; it returns one of the candidates. It never sees sockets, health or
clocks, and it is never asked with no candidate.
"""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from prefork_lb.clock import Clock, monotonic
from prefork_lb.wire.head import Index


class Candidate(Protocol):
    """A server that may be picked."""

    @property
    def slot(self) -> int:
        """Its place in every column of the policy's memory."""

    @property
    def name(self) -> str:
        """Its address as text: by that it is the same server after a reload, and at another place in the configuration."""

    @property
    def weight(self) -> int:
        """Its share of the load against the other servers at this moment, 1 or more; less in slow start."""

    @property
    def configured_weight(self) -> int:
        """The weight that the configuration gives it."""

    @property
    def backup(self) -> bool:
        """Whether it is used only while no other server can be."""

    @property
    def in_flight(self) -> int:
        """Requests claimed on it and not yet released, over all workers, at this moment."""


class RequestInfo(Protocol):
    """What a policy may know of the request."""

    @property
    def method(self) -> bytes: ...

    @property
    def target(self) -> bytes: ...

    @property
    def client(self) -> str: ...

    @property
    def index(self) -> Index:
        """The values of the header fields under each lower-case name."""

    key: bytes
    """What the pool's `key` is in this request; empty when the request has none, or the pool."""
    queue_s: float
    """Seconds for which it has waited in queues so far; the pool adds to it."""


class Cells(Protocol):
    """Integers by index, as in a list or in shared memory."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


@dataclass(frozen=True, slots=True)
class PolicyMemory:
    """Signed 64-bit integers, all zero at first, shared by all workers and changed only under the ledger's lock.

    The eight `cells` belong to the pool; of each of the eight columns `columns[n][candidate.slot]` belongs to one server.
    The last column is not the policy's: it counts the server's requests whose answer is awaited (`balance.answer_times`).
    After a worker died inside the lock the memory of every pool is zeroed, so a policy must be content with zeroes at any time.
    """

    cells: Cells
    columns: Sequence[Cells]


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """What the configuration of a pool says to its policy."""

    load_factor: float = 1.25
    load: str = "connections"  # of power-of-two; or "peak-ewma" or "least-time"
    compatible: str = ""  # with "nginx" or "nginx-ketama"


@dataclass(frozen=True, slots=True)
class PolicySetup:
    """What a policy of this package is made from."""

    rng: random.Random  # of this process
    memory: PolicyMemory
    servers: Sequence[Candidate] = ()  # all of the pool, backups too, in the order of the configuration
    options: PolicyOptions = PolicyOptions()
    clock: Clock = monotonic


class Policy(Protocol):
    """The rule by which a pool picks a server.

    A policy of this package is made from a `PolicySetup`. A site's own class is called with a random generator of this process
    and the shared memory: `Class(rng, memory)`. `pick` runs under the ledger's lock: the in-flight counts are exact across
    workers and no other claim comes between the pick and its own, so time spent in it is every worker's time.
    """

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        """Return one of `candidates`, which is never empty and stands in the order of the configuration."""


@runtime_checkable
class TakesTurns(Protocol):
    """A policy that shares by turns, and has to know of turns that it did not give. It need not have this."""

    def took(self, server: Candidate, candidates: tuple[Candidate, ...]) -> None:
        """A session has taken `server`, one of `candidates`, without a pick: account for its turn. Under the ledger's lock.

        `candidates` is the same object for as long as no weight changes.
        """
