"""How a route's requests are served, where that is not by one pool alone and in the usual way."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from prefork_lb.errors import OwnAnswer
from prefork_lb.routing.cors import SERVERS_SAY, Cors
from prefork_lb.routing.https import HSTS, Https
from prefork_lb.routing.mirror import Mirror
from prefork_lb.routing.split import Split
from prefork_lb.routing.template import Facts


class ServerTimeouts(NamedTuple):
    """Seconds that servers have; 0: as `proxy.timeouts` says."""

    connect: float = 0.0
    response: float = 0.0
    idle: float = 0.0


class Bandwidth(NamedTuple):
    """How fast a response's body goes to its client."""

    per_second: int  # bytes
    after: int = 0  # bytes that go at full speed first


class Page(NamedTuple):
    """An error page of a site's own."""

    fields: Sequence[tuple[bytes, bytes]]  # that describe its content
    content: bytes


class OwnPages(NamedTuple):
    """What a route says of the answers that the balancer itself gives to one of its requests."""

    by_status: Mapping[int, Page]  # in the place of the balancer's error pages
    fields: Sequence[tuple[bytes, bytes]]  # that each of the answers gets


NO_PAGES = OwnPages(MappingProxyType({}), ())


@dataclass(frozen=True, slots=True)
class Serving:
    """Of one route."""

    split: Split | None = None  # None: the route's pool gets all
    failover: str = ""  # the pool that serves when the first has no usable server; empty: none does
    mirror: Mirror | None = None  # gets copies; None: there are none
    timeouts: ServerTimeouts = ServerTimeouts()
    error_pages: Mapping[int, Page] = field(default_factory=dict)  # by status
    cors: Cors | None = None  # None: servers say what pages of other origins may do
    https: Https | None = None  # None: over http as well
    bandwidth: Bandwidth | None = None  # None: as fast as can be

    def answer(self, facts: Facts) -> OwnAnswer | None:
        """The answer to a request that is for no server; None: it is for one. Raises BadRequest."""
        if self.https is not None and (answer := self.https.redirect(facts)) is not None:
            return answer
        return self.cors.preflight(facts.head) if self.cors is not None else None

    def pages(self, facts: Facts) -> OwnPages:
        """What it says of the balancer's own answers to a request."""
        if self.cors is None and self.https is None:
            return OwnPages(self.error_pages, ())
        fields = self.https.fields(facts) if self.https is not None else []
        return OwnPages(self.error_pages, [*fields, *(self.cors.fields(facts.head) if self.cors is not None else ())])

    @property
    def removed(self) -> frozenset[bytes]:
        """Names of fields, in lower case, that servers' responses lose."""
        found = SERVERS_SAY if self.cors is not None else frozenset[bytes]()
        return found | {HSTS} if self.https is not None else found
