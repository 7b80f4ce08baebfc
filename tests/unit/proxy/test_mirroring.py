"""Copies of requests to another pool: what they are, how many, and that the original never notices."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from prefork_lb.errors import ConnectFailed, ProxyError
from prefork_lb.net.address import Address
from prefork_lb.proxy.request import Request
from prefork_lb.routing.mirror import Mirror
from prefork_lb.routing.serving import Serving
from prefork_lb.shared.states import Admin
from tests.unit.proxy.loopback import Connection, ScriptedServer
from tests.unit.proxy.site import Site, echo
from tests.unit.proxy.test_engine import refusing

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site() -> Iterator[MakeSite]:
    """Makes a site with the pools "web", "shadow" and "other"; all requests to "web" are copied to "shadow"."""
    made: list[Site] = []
    with ScriptedServer(echo) as web, ScriptedServer(echo) as other:
        def make(shadow: Address, share: float = 1.0, ended: Callable[[Request], None] | None = None,
                 collected: int = 1 << 20) -> Site:
            servers = {"web": web.address, "shadow": shadow, "other": other.address}
            made.append(Site(servers, Serving(failover="other", mirror=Mirror("shadow", share, 0)), ended, collected))
            return made[-1]

        yield make
        for site in made:
            assert list(site.ledger.totals[:3]) == [0, 0, 0], "a claim is left"
            site.close()


def run(site: Site) -> int:
    """Run the copies that are due; how many."""
    count = len(site.jobs)
    while site.jobs:
        site.jobs.pop(0)()
    return count


def test_a_copy_is_the_request_with_its_body(make_site: MakeSite) -> None:
    bodies: list[bytes] = []

    def script(connection: Connection) -> None:
        connection.head()
        bodies.append(connection.body(9))
        connection.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")

    with ScriptedServer(script) as shadow:
        site = make_site(shadow.address)
        reply, request = site.ask(b"some body")
        assert (reply.status, site.content) == (200, b"some body"), "the copy's answer came to the client"
        assert not shadow.requests, "the exchange waited for its copy"
        assert run(site) == 1
        assert request.plan is not None and request.plan.pool.name == "web"
        assert shadow.requests[0].startswith(b"PUT / HTTP/1.1\r\nHost: a.test\r\n") and bodies == [b"some body"]


def test_a_share_is_copied(make_site: MakeSite) -> None:
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address, 0.25)
        for _ in range(80):
            site.ask()
        assert abs(len(site.jobs) - 20) <= 2
        run(site)


def test_a_copy_is_told_of_by_itself(make_site: MakeSite) -> None:
    told: list[Request] = []
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address, ended=told.append)
        _, request = site.ask(b"abc")
        run(site)
    copy, = told
    assert copy is not request and copy.plan is not None and copy.plan.pool.name == "shadow"
    assert (copy.status, copy.bytes_out, copy.ending) == (200, 3, "finished")


def test_a_mirror_that_is_down_is_not_noticed(make_site: MakeSite) -> None:
    told: list[Request] = []
    site = make_site(refusing(), ended=told.append)
    for _ in range(200):
        assert site.ask(b"abc")[0].status == 200
        assert run(site) == 1
    assert {(copy.status, copy.ending) for copy in told} == {(ConnectFailed.status, ConnectFailed.ending)}


def test_a_mirror_without_servers_is_not_noticed(make_site: MakeSite) -> None:
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address)
        with site.ledger.locked():
            site.states.set_admin(site.slots["shadow"], Admin.DRAIN)
        assert site.ask()[0].status == 200
        assert run(site) == 1 and not shadow.requests


def test_a_mirror_that_hangs_gets_no_more_than_its_places(make_site: MakeSite) -> None:
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address)
        for _ in range(100):
            site.ask()
        assert len(site.jobs) == 64
        site.jobs.pop()()
        site.ask()
        site.ask()
        assert len(site.jobs) == 64, "a place that is free again is used, once"
        run(site)


def test_long_bodies_are_not_copied(make_site: MakeSite) -> None:
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address)
        site.ask(b"x" * 65536)
        assert run(site) == 1
        site.ask(b"x" * 65536, b"y")
        assert run(site) == 0


def test_bodies_that_are_not_received_whole_are_not_copied(make_site: MakeSite) -> None:
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address, collected=0)
        site.ask(b"some", b"body")
        assert run(site) == 0


def test_an_endless_answer_is_broken_off(make_site: MakeSite) -> None:
    sent = 0

    def script(connection: Connection) -> None:
        nonlocal sent
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.send(b"10000\r\n" + bytes(65536) + b"\r\n")
            sent += 65536

    with ScriptedServer(script) as shadow:
        site = make_site(shadow.address)
        site.ask()
        assert run(site) == 1, "the copy went on for ever"
    assert sent >= 1 << 20


def test_a_policy_that_raises_for_a_copy_costs_no_place(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address)

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(site.pools["shadow"].policy, "pick", fail)
        for _ in range(100):
            site.ask()
            assert run(site) == 1


def test_with_a_failover_there_is_one_copy(make_site: MakeSite) -> None:
    with ScriptedServer(echo) as shadow:
        site = make_site(shadow.address)
        with site.ledger.locked():
            site.states.set_admin(site.slots["web"], Admin.DRAIN)
        assert site.pool_of() == "other" and run(site) == 1
        with site.ledger.locked():
            site.states.set_admin(site.slots["other"], Admin.DRAIN)
        with pytest.raises(ProxyError):
            site.ask()
        assert run(site) == 0, "a request that no server got was copied"
