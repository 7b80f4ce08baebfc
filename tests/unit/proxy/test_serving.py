"""Routes with several pools: which one serves, and what becomes of a request when it cannot."""
from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping

import pytest

from prefork_lb.balance.first import First
from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.clock import monotonic
from prefork_lb.errors import ConnectFailed, NoUsableServer
from prefork_lb.net.address import Address
from prefork_lb.net.dial import Dialer
from prefork_lb.proxy.attempt import Settings, Timeouts
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.routing.match import Route, Router
from prefork_lb.routing.serving import Serving
from prefork_lb.routing.split import Split
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.transitions import Check
from prefork_lb.upstream.idle import IdleConnections
from prefork_lb.upstream.retries import RetryRules
from prefork_lb.upstream.server import UNLIMITED, Server
from prefork_lb.wire.head import HeadLimits, RequestHead, parse_response
from tests.unit.proxy.loopback import DEADLINE_S, STRANGER, Client, Connection, ScriptedServer, Source
from tests.unit.proxy.test_engine import refusing
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

    def __init__(self, servers: Mapping[str, Address], serving: Serving) -> None:
        self.ledger = Ledger(attach_or_create(os.getpid(), Layout(rows=2, servers=len(servers), pools=1)))
        self.states = States(self.ledger.segment)
        self.slots = {name: slot for slot, name in enumerate(servers)}
        self.pools = {}
        for slot, (name, address) in enumerate(servers.items()):
            server = Server(slot, address, str(address), 1, UNLIMITED, False, IdleConnections(4, 60.0, monotonic))
            policy = First(PolicySetup(random.Random(1), PolicyMemory([0] * 8, [])))
            self.pools[name] = make_pool(self.ledger, [server], policy, name, retries=RetryRules(2))
        parse = functools.partial(parse_response, limits=HeadLimits())
        settings = Settings(Timeouts(DEADLINE_S, DEADLINE_S, DEADLINE_S), HeadLimits(), b"lb", monotonic, parse, Dialer().dial,
                            collected_bytes=65536)
        self.engine = Engine(Router([Route(next(iter(servers)), serving=serving)]), self.pools, settings)

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()
        self.ledger.close()
        remove(os.getpid())

    def drain(self, name: str) -> None:
        with self.ledger.locked():
            self.states.set_admin(self.slots[name], Admin.DRAIN)

    def check(self, name: str, state: Check) -> None:
        with self.ledger.locked():
            self.states.set_check(self.slots[name], state, "")

    def ask(self, body: bytes = b"", cookie: bytes = b"", head: RequestHead | None = None) -> tuple[Reply, Request]:
        fields = [(b"Host", b"a.test"), (b"Content-Length", b"%d" % len(body))] + ([(b"Cookie", cookie)] if cookie else [])
        request = Request(head or RequestHead(b"PUT", b"/", 1, fields), STRANGER, Source(body), Client())
        reply = self.engine.exchange(request)
        while reply.read():
            pass
        reply.close()
        return reply, request

    def pool_of(self, body: bytes = b"", cookie: bytes = b"", head: RequestHead | None = None) -> str:
        """The pool that serves a request."""
        _, request = self.ask(body, cookie, head)
        assert request.plan is not None
        return request.plan.pool.name


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site() -> Iterator[MakeSite]:
    """Makes a site with the pools "web" and "other"; the server of "web" may have another address."""
    made: list[Site] = []
    with ScriptedServer(echo) as web, ScriptedServer(echo) as other:
        def make(serving: Serving, address: Address | None = None) -> Site:
            made.append(Site({"web": address or web.address, "other": other.address}, serving))
            return made[-1]

        yield make
        for site in made:
            site.close()


def test_requests_with_the_same_head_are_split(make_site: MakeSite) -> None:
    site = make_site(Serving(Split({"web": 3, "other": 1}, "", 0)))
    head = RequestHead(b"GET", b"/", 1, [(b"Host", b"a.test")])
    pools = [site.pool_of(head=head) for _ in range(40)]
    assert abs(pools.count("other") - 10) <= 1
    assert head.kept is not None, "the plan is not worked out for each request"


def test_a_client_is_told_its_pool_once(make_site: MakeSite) -> None:
    site = make_site(Serving(Split({"web": 1, "other": 1}, "release", 0)))
    reply, request = site.ask(cookie=b"a=b")
    assert request.plan is not None
    pool = request.plan.pool.name.encode()
    assert list(reply.added) == [(b"Set-Cookie", b"release=%b; Path=/; HttpOnly; SameSite=Lax" % pool)]
    for _ in range(5):
        reply, request = site.ask(cookie=b"release=%b; a=b" % pool)
        assert not reply.added and request.plan is not None and request.plan.pool.name.encode() == pool
        assert b"release" not in request.plan.block and b"Cookie: a=b\r\n" in request.plan.block, "servers get the cookie"


def test_without_a_usable_server_the_other_pool_serves(make_site: MakeSite) -> None:
    site = make_site(Serving(failover="other"))
    assert site.pool_of() == "web"
    site.drain("web")
    reply, request = site.ask(b"the body")
    assert request.plan is not None and request.plan.pool.name == "other"
    assert (reply.status, request.bytes_in) == (200, 8), "the body that was received for the first pool goes to the second"


def test_a_pool_whose_servers_are_all_down_is_not_asked_in_panic(make_site: MakeSite) -> None:
    """A pool by itself would ask servers that are down, since one of them may live: here there is a better one."""
    site = make_site(Serving(failover="other"))
    site.check("web", Check.DOWN)
    assert site.pool_of() == "other"
    site.check("web", Check.UP)
    assert site.pool_of() == "web"


def test_when_both_have_failed_the_first_one_is_tried(make_site: MakeSite) -> None:
    site = make_site(Serving(failover="other"))
    site.check("web", Check.DOWN)
    site.check("other", Check.DOWN)
    assert site.pool_of() == "web"
    site.drain("web")
    assert site.pool_of() == "other"
    site.drain("other")
    with pytest.raises(NoUsableServer):
        site.ask()


def test_a_failed_attempt_is_no_reason_to_go_to_the_other_pool(make_site: MakeSite) -> None:
    """The servers of a pool retry among themselves. Requests go elsewhere when they are ejected, or down by their checks."""
    site = make_site(Serving(failover="other"), refusing())
    with pytest.raises(ConnectFailed):
        site.ask()


def test_a_client_whose_pool_fails_keeps_its_cookie(make_site: MakeSite) -> None:
    site = make_site(Serving(Split({"web": 1, "other": 0}, "release", 0), "other"))
    site.drain("web")
    reply, request = site.ask(cookie=b"release=web")
    assert request.plan is not None and request.plan.pool.name == "other" and not reply.added
    reply, request = site.ask()
    assert not reply.added, "the failover has no weight in the split"
