"""An engine over several pools of one server each, behind one route."""
from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Mapping

from prefork_lb.balance.first import First
from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.clock import monotonic
from prefork_lb.net.address import Address
from prefork_lb.net.dial import SocketDialer
from prefork_lb.proxy.attempt import AttemptSettings, Timeouts
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Ended, Request
from prefork_lb.routing.match import Route, Router
from prefork_lb.routing.serving import Serving
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.transitions import Check
from prefork_lb.upstream.idle_connections import IdleConnections
from prefork_lb.upstream.retries import RetryRules
from prefork_lb.upstream.server import UNLIMITED, Server
from prefork_lb.wire.head import HeadLimits, RequestHead
from prefork_lb.wire.parse import parse_response
from tests.unit.proxy.loopback import DEADLINE_S, STRANGER, Client, Connection, Source
from tests.unit.upstream.parts import make_pool


def echo(connection: Connection) -> None:
    """Answer each request with its body."""
    while True:
        head = connection.head()
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        body = connection.body(length)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class Site:
    """Pools of one server each behind one route."""

    def __init__(self, servers: Mapping[str, Address], serving: Serving, ended: Ended | None = None,
                 collected: int = 1 << 20) -> None:
        """`collected` bytes of a body are received whole. `ended` hears of copies. They are `jobs` until a test runs them."""
        self.jobs: list[Callable[[], None]] = []
        self.ledger = Ledger(attach_or_create(os.getpid(), Layout(rows=2, servers=len(servers), pools=1)))
        self.states = States(self.ledger.segment)
        self.slots = {name: slot for slot, name in enumerate(servers)}
        self.pools = {}
        for slot, (name, address) in enumerate(servers.items()):
            server = Server(slot, address, str(address), 1, UNLIMITED, False, IdleConnections(4, 60.0, monotonic))
            policy = First(PolicySetup(random.Random(1), PolicyMemory([0] * 8, [])))
            self.pools[name] = make_pool(self.ledger, [server], policy, name, retries=RetryRules(2))
        parse = functools.partial(parse_response, limits=HeadLimits())
        settings = AttemptSettings(Timeouts(DEADLINE_S, DEADLINE_S, DEADLINE_S), HeadLimits(), b"lb", monotonic, parse,
                                   SocketDialer().dial, aside=self.jobs.append, collected_bytes=collected)
        self.engine = Engine(Router([Route(next(iter(servers)), serving=serving)]), self.pools, settings, ended)

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()
        self.ledger.close()
        remove_segment(os.getpid())

    def drain(self, name: str) -> None:
        with self.ledger.locked():
            self.states.set_admin(self.slots[name], Admin.DRAIN)

    def check(self, name: str, state: Check) -> None:
        with self.ledger.locked():
            self.states.set_check(self.slots[name], state, "")

    def ask(self, *body: bytes, cookie: bytes = b"", head: RequestHead | None = None) -> tuple[Reply, Request]:
        fields = [(b"Host", b"a.test"), (b"Content-Length", b"%d" % sum(map(len, body)))]
        fields += [(b"Cookie", cookie)] if cookie else []
        request = Request(head or RequestHead(b"PUT", b"/", 1, fields), STRANGER, Source(*body), Client())
        reply = self.engine.exchange(request)
        self.content = b"".join(iter(reply.read, b""))
        reply.close()
        return reply, request

    def pool_of(self, *, cookie: bytes = b"", head: RequestHead | None = None) -> str:
        """The pool that serves a request."""
        _, request = self.ask(cookie=cookie, head=head)
        assert request.plan is not None
        return request.plan.pool.name
