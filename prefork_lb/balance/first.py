"""First: the first server of the list that may take the request."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate, PolicySetup, RequestInfo


class First:
    """The first candidate. With `max_connections` it fills one server after another, so that the rest can be off."""

    def __init__(self, setup: PolicySetup) -> None:
        pass

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        return candidates[0]
