"""An engine over one pool, with a real ledger in shared memory, for scripted servers on loopback ports."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Sequence

from prefork_lb.balance.first import First
from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.clock import monotonic
from prefork_lb.net.address import Address
from prefork_lb.net.dial import SocketDialer
from prefork_lb.proxy.attempt import AttemptSettings, Timeouts
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import BodySource, Request
from prefork_lb.routing.match import Route, Router
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.upstream.idle_connections import IdleConnections
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.retries import RetryRules
from prefork_lb.upstream.server import UNLIMITED, Server
from prefork_lb.upstream.sticky.session import Sticky
from prefork_lb.wire.head import HeadLimits, RequestHead
from prefork_lb.wire.parse import parse_response
from tests.unit.proxy.loopback import DEADLINE_S, STRANGER, Client, Source
from tests.unit.upstream.parts import make_pool

IDLE_MOST = 4


class Rig:
    """One pool "web" whose policy takes the first candidate. `close` it, or use it as a context manager."""

    def __init__(self, *addresses: Address, attempts: int = 2, timeouts: Timeouts | None = None,
                 rules: RetryRules | None = None, sticky: Callable[[Sequence[Server]], Sticky] | None = None) -> None:
        self.ledger = Ledger(attach_or_create(os.getpid(), Layout(rows=2, servers=max(1, len(addresses)), pools=1)))
        self.servers = [
            Server(slot, address, str(address), 1, UNLIMITED, False, IdleConnections(IDLE_MOST, 60.0, monotonic))
            for slot, address in enumerate(addresses)
        ]
        policy = First(PolicySetup(random.Random(1), PolicyMemory([0] * 8, [])))
        self.pool = make_pool(self.ledger, self.servers, policy, retries=rules or RetryRules(attempts),
                              sticky=sticky(self.servers) if sticky is not None else None)
        self.settings = AttemptSettings(
            timeouts or Timeouts(DEADLINE_S, DEADLINE_S, DEADLINE_S),
            HeadLimits(),
            b"lb",
            monotonic,
            functools.partial(parse_response, limits=HeadLimits()),
            SocketDialer().dial,
        )
        self.engine = Engine(Router([Route("web")]), {"web": self.pool}, self.settings)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()
        self.ledger.close()
        remove_segment(os.getpid())

    @property
    def in_flight(self) -> list[int]:
        """Claims by server."""
        return list(self.ledger.totals[: len(self.servers)])

    @property
    def idle(self) -> list[int]:
        """Kept connections by server."""
        return [len(server.idle) for server in self.servers]

    def lease(self) -> Lease:
        """A lease of the first server."""
        return self.pool.lease(request(), [])

    def exchange(self, asked: Request) -> Reply:
        return self.engine.exchange(asked)

    def fetch(
        self, method: bytes = b"GET", source: BodySource | None = None, fields: Sequence[tuple[bytes, bytes]] = ()
    ) -> tuple[int, bytes]:
        """Status and body of a whole exchange."""
        reply = self.exchange(request(method, source, fields))
        try:
            return reply.status, b"".join(iter(reply.read, b""))
        finally:
            reply.close()


def request(
    method: bytes = b"GET",
    source: BodySource | None = None,
    fields: Sequence[tuple[bytes, bytes]] = (),
    client: Client | None = None,
    target: bytes = b"/",
) -> Request:
    head = RequestHead(method, target, 1, [(b"Host", b"a.test"), *fields])
    return Request(head, STRANGER, source or Source(), client or Client())
