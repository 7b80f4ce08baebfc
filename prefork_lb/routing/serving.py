"""How a route's requests are served, where that is not by one pool alone."""
from __future__ import annotations

from dataclasses import dataclass

from prefork_lb.routing.mirror import Mirror
from prefork_lb.routing.split import Split


@dataclass(frozen=True, slots=True)
class Serving:
    """Of one route."""

    split: Split | None = None  # None: the route's pool gets all
    failover: str = ""  # the pool that serves when the first has no usable server; empty: none does
    mirror: Mirror | None = None  # gets copies; None: there are none
