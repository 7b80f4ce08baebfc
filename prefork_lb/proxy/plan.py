"""What follows from a head and its client alone. Heads come again, and then it need not be worked out again."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prefork_lb.routing.actions import Take
from prefork_lb.routing.guards import Guarded
from prefork_lb.routing.serving import NO_PAGES, Bandwidth, Serving
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.sticky.session import Sticky
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.framing import Framing

if TYPE_CHECKING:
    from prefork_lb.proxy.attempt import AttemptSettings
    from prefork_lb.proxy.outbound import OutboundBody
    from prefork_lb.proxy.request import Request

Copy = Callable[["Request", bytes, "OutboundBody"], None]
"""Copies a request, with its head and body for servers, if it is its turn."""

FieldWork = tuple[frozenset[bytes], Sequence[tuple[bytes, bytes]]]
"""Names in lower case whose fields are taken out, and fields that are written."""


class Plan:
    """How the requests with a head are passed on; the engine keeps it with the head."""

    __slots__ = ("bandwidth", "block", "body_limit", "changes", "engine", "filters", "framing", "guarded", "logged", "mirror",
                 "others", "pages", "peer", "pool", "serving", "settings", "take", "target", "told")

    def __init__(self, engine: object, peer: ClientInfo, pool: Pool, framing: Framing, block: bytes, target: bytes,
                 told: tuple[Sticky | None, object]) -> None:
        self.engine, self.peer = engine, peer  # whose plan it is, and for which client
        self.pool, self.framing = pool, framing
        self.block = block  # the head as it goes to a server
        self.target = target  # in origin-form
        self.told = told  # what it says of its session, as the pool's mode for sessions has read it
        self.body_limit = 0  # bytes of the request's body; 0: none
        self.take: Take | None = None  # counts a request against the route's rate
        self.guarded: Guarded | None = None  # what a request has to pass; None: nothing
        self.changes: FieldWork | None = None  # of the response's fields
        self.serving: Serving | None = None  # None: by the pool alone, in the usual way
        self.pages = NO_PAGES
        self.settings: AttemptSettings | None = None  # None: the engine's
        self.bandwidth: Bandwidth | None = None  # of the response; None: as fast as can be
        self.mirror: Copy | None = None  # copies a request that is sent; None: there are no copies
        self.others: dict[str, Plan] | None = None  # the same for other pools of the route, once one was needed
        self.filters: Callable[[Request], Plan] | None = None  # lets them look at a request, whose plan may become another one
        self.logged = b""  # of the access log: what a line holds of the head; empty: not worked out yet

    def at(self, pool: Pool, told: tuple[Sticky | None, object]) -> Plan:
        """The same for another pool; `told` is what the head says of its session there."""
        other = Plan(self.engine, self.peer, pool, self.framing, self.block, self.target, told)
        if self.others is None:
            self.others = {}
        self.others[pool.name] = other
        other.body_limit, other.mirror, other.settings = self.body_limit, self.mirror, self.settings
        other.bandwidth = self.bandwidth
        return other
