"""Routes with several pools: which one serves, and what becomes of a request when it cannot."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from prefork_lb.errors import ConnectFailed, NoUsableServer
from prefork_lb.net.address import Address
from prefork_lb.routing.serving import Serving
from prefork_lb.routing.split import Split
from prefork_lb.shared.transitions import Check
from prefork_lb.wire.head import RequestHead
from tests.unit.proxy.loopback import ScriptedServer
from tests.unit.proxy.site import Site, echo
from tests.unit.proxy.test_engine import refusing

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
