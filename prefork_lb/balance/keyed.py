"""What the policies that go by a request's key have in common."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from prefork_lb.balance.caps import Caps
from prefork_lb.balance.policy import Candidate, Policy, RequestInfo


class Loads(Protocol):
    """The servers that may be picked at this moment. It belongs to one pick, under the ledger's lock."""

    def can_take(self, server: Candidate) -> bool:
        """Whether this server may be picked; its `in_flight` is that of this moment then."""

    def total(self) -> int:
        """Requests in flight on all usable servers, be they full or tried already."""

    def caps(self) -> Caps:
        """How a number of requests is divided among these servers."""


class KeyedPolicy(ABC):
    """A policy that looks at few servers: those that the key leads to.

    A pool calls `order` before it takes the lock, and `choose` under it; `pick`, with all candidates, when the request has no key
    or `choose` finds no server.
    """

    def __init__(self, otherwise: Policy) -> None:
        """`otherwise` picks for requests without a key, and where no server for the key is a candidate."""
        self._otherwise = otherwise

    @abstractmethod
    def order(self, key: bytes) -> Iterator[Candidate]:
        """The servers for a key, which is not empty, the preferred one first; no backups."""

    def backup_order(self, key: bytes) -> Iterator[Candidate]:
        """The same of the backups."""
        return iter(())

    @abstractmethod
    def divide(self, servers: Sequence[Candidate], weights: Mapping[int, int]) -> None:
        """Divide the keys among these servers, backups among them, by these weights, by slot: of the configuration, or set by
        command; slow start is not in them."""

    def choose(self, order: Iterator[Candidate], loads: Loads) -> Candidate | None:
        """The server that takes the request, of those in `order`; None: none of them can."""
        return first_that_can(order, loads)

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        if request.key:
            order = self.backup_order(request.key) if candidates[0].backup else self.order(request.key)
            found = self.choose(order, CandidateLoads(candidates))
            if found is not None:
                return found
        return self._otherwise.pick(candidates, request)


class CandidateLoads:
    """A list of candidates, as a policy is given it, seen as `Loads`."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._servers = candidates
        self._slots = {server.slot for server in candidates}

    def can_take(self, server: Candidate) -> bool:
        return server.slot in self._slots

    def total(self) -> int:
        return sum(server.in_flight for server in self._servers)

    def caps(self) -> Caps:
        return Caps(self._servers)


def first_that_can(order: Iterator[Candidate], loads: Loads) -> Candidate | None:
    """The first server of `order` that can be picked."""
    for server in order:
        if loads.can_take(server):
            return server
    return None
