"""Routes with several pools: which one serves, and what becomes of a request when it cannot."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from prefork_lb.errors import ConnectFailed, NoUsableServer, OwnAnswer, ResponseTimeout, TooManyRequests
from prefork_lb.net.address import Address
from prefork_lb.proxy.attempt import Timeouts
from prefork_lb.proxy.request import Request
from prefork_lb.routing.cors import Cors
from prefork_lb.routing.https import Https
from prefork_lb.routing.serving import Bandwidth, Page, ServerTimeouts, Serving
from prefork_lb.routing.split import Split
from prefork_lb.shared.transitions import Check
from prefork_lb.wire.head import RequestHead
from tests.unit.proxy.loopback import DEADLINE_S, STRANGER, Client, Connection, ScriptedServer, Source
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


def silent(connection: Connection) -> None:
    connection.head()
    connection.body(1)  # which never comes


def test_a_route_has_its_own_timeouts(make_site: MakeSite) -> None:
    with ScriptedServer(silent) as server:
        site = make_site(Serving(timeouts=ServerTimeouts(response=0.05)), server.address)
        for _ in range(2):  # the plan is kept with the head
            with pytest.raises(ResponseTimeout, match="no response head within 0.05 s"):
                site.ask()


def test_a_timeout_that_a_route_does_not_have_is_the_usual_one(make_site: MakeSite) -> None:
    site = make_site(Serving(timeouts=ServerTimeouts(response=3.0)))
    _, request = site.ask()
    assert request.plan is not None and request.plan.settings is not None
    assert request.plan.settings.timeouts == Timeouts(DEADLINE_S, 3.0, DEADLINE_S)


def test_the_limit_of_a_routes_bandwidth_holds_for_all_its_pools(make_site: MakeSite) -> None:
    bandwidth = Bandwidth(65536)
    site = make_site(Serving(failover="other", bandwidth=bandwidth))
    for drained in ("", "web"):
        if drained:
            site.drain(drained)
        _, request = site.ask()
        assert request.plan is not None
        assert (request.plan.pool.name, request.plan.bandwidth) == ("other" if drained else "web", bandwidth)


def test_a_request_knows_the_error_pages_of_its_route(make_site: MakeSite) -> None:
    pages = {503: Page([(b"Content-Type", b"text/html")], b"<p>later")}
    site = make_site(Serving(error_pages=pages))
    site.drain("web")
    head = RequestHead(b"GET", b"/", 1, [(b"Host", b"a.test")])
    for _ in range(2):
        request = Request(head, STRANGER, Source(), Client())
        with pytest.raises(NoUsableServer):
            site.engine.exchange(request)
        assert request.pages == (pages, ())


def test_a_response_gets_what_the_route_says_in_the_place_of_what_the_server_says(make_site: MakeSite) -> None:
    def script(connection: Connection) -> None:
        while True:
            connection.head()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAccess-Control-Allow-Origin: *\r\nX-Other: 1\r\n\r\n")

    with ScriptedServer(script) as server:
        site = make_site(Serving(cors=Cors(["https://a.example"])), server.address)
        head = RequestHead(b"GET", b"/", 1, [(b"Host", b"a.test"), (b"Origin", b"https://a.example")])
        for _ in range(2):  # the plan is kept with the head
            reply, request = site.ask(head=head)
            assert list(reply.added) == [(b"Access-Control-Allow-Origin", b"https://a.example"), (b"Vary", b"Origin")]
            assert [name for name, _ in reply.fields if name.startswith((b"Access", b"X-"))] == [b"X-Other"]
            assert list(request.pages.fields) == list(reply.added), "error pages say it, too: scripts may read them"


def test_a_preflight_asks_no_server(make_site: MakeSite) -> None:
    site = make_site(Serving(cors=Cors(["https://a.example"])), refusing())
    fields = [(b"Host", b"a.test"), (b"Origin", b"https://a.example"), (b"Access-Control-Request-Method", b"PUT")]
    with pytest.raises(OwnAnswer) as caught:
        site.ask(head=RequestHead(b"OPTIONS", b"/", 1, fields))
    assert caught.value.status == 204


def test_http_is_sent_to_https_before_anything_else(make_site: MakeSite) -> None:
    site = make_site(Serving(https=Https(60, False)), refusing())
    with pytest.raises(OwnAnswer) as caught:
        site.ask()
    assert (b"Location", b"https://a.test/") in caught.value.fields


def test_a_request_over_its_rate_gets_the_error_page_of_its_route(make_site: MakeSite) -> None:
    site = make_site(Serving(error_pages={429: Page([], b"slowly")}))
    head = RequestHead(b"GET", b"/", 1, [(b"Host", b"a.test")])
    _, first = site.ask(head=head)

    def refuse() -> None:
        raise TooManyRequests("x", 1, [])

    assert first.plan is not None
    first.plan.take = refuse
    request = Request(head, STRANGER, Source(), Client())
    with pytest.raises(TooManyRequests):
        site.engine.exchange(request)
    assert request.pages.by_status[429].content == b"slowly"
