"""Sessions that wait for their server, and those by address and by field, over the workers of several classes."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import visible_segments
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table_lookup import slots_by_key
from tests.support.balancer import GEVENT, GTHREAD, PROXY, Balancer, FrontEnd
from tests.support.client import Connection, Fields, Response, fetch, request_bytes
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SERVERS = 3
WORKERS = 4
KEYS = 24
QUEUE_S = 30
SINGLE = "max_connections = 1"  # of each server of the pool "wait"


class Site:
    """A pool for each kind of session over the same servers; sessions of the pool `wait` are by cookie."""

    def __init__(self, rig: Rig, front_end: FrontEnd) -> None:
        self.origin = rig.origin(SERVERS)
        pools = {"wait": f'mode = "cookie"\non_failure = "wait"\n[pools.wait.queue]\nsize = 50\ntimeout = {QUEUE_S}',
                 "source": 'mode = "source"', "header": 'mode = "header:X-Key"'}
        text = '[proxy]\ntrusted_proxies = ["127.0.0.0/8"]\n'
        for name, sticky in pools.items():
            limit = SINGLE if name == "wait" else "max_connections = 100"
            servers = ", ".join(f'{{ address = "{address}", {limit} }}' for address in self.origin.addresses)
            text += f'[pools.{name}]\nservers = [{servers}]\n[pools.{name}.sticky]\n{sticky}\n'
            text += f'[[routes]]\nhosts = ["{name}.test"]\npool = "{name}"\n'
        self.balancer: Balancer = rig.balancer(text, front_end, workers=WORKERS)
        self._segment = next(found for found in visible_segments() if self.balancer.master in found.masters())

    def set_admin(self, pool: str, server: int, state: Admin) -> None:
        """As `prefork-lb maintenance` does it, without a process of its own."""
        ledger, states = Ledger(self._segment, takes_row=False), States(self._segment)
        with ledger.locked():
            states.set_admin(slots_by_key(self._segment)[pool, self.origin.addresses[server]], state)

    def wait_for_line(self, server: int, count: int) -> None:
        """Wait until so many requests wait for a server of the pool `wait`."""
        slot = slots_by_key(self._segment)["wait", self.origin.addresses[server]]
        line = self._segment.cells[self._segment.layout.column(at.C_OWN_WAITING)]
        wait_until(lambda: line[slot] == count, lambda: f"{count} requests wait, now {line[slot]}", 20)

    def get(self, pool: str, target: str = "/", *fields: tuple[str, str]) -> Response:
        found = fetch(self.balancer.address, target, fields=[("Host", f"{pool}.test"), *fields])
        assert found.status == 200, found
        return found

    def homes(self, pool: str) -> list[int]:
        """The server of each key, each asked for by a connection of its own."""
        start = len(self.origin.arrivals)
        for number in range(KEYS):
            self.get(pool, "/", ("X-Key", f"key-{number}") if pool == "header" else ("X-Forwarded-For", f"192.0.2.{number}"))
        return self.origin.order(start)


@pytest.fixture(scope="module", params=[GTHREAD, GEVENT, PROXY], ids=str)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    front_end: FrontEnd = request.param
    with Rig(tmp_path_factory.mktemp("sessions")) as rig:
        made = Site(rig, front_end)
        with made.origin.released_at_end():
            yield made


class Visitor:
    """A browser with a session in the pool `wait`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        set_cookie = site.get("wait").value("Set-Cookie")
        assert set_cookie is not None
        self.fields: Fields = [("Host", "wait.test"), ("Cookie", set_cookie.partition(";")[0])]
        self.server = site.origin.order()[-1]

    def get(self) -> Response:
        return self._site.get("wait", "/", *self.fields[1:])

    def send(self, target: str) -> Connection:
        """Send a request on a connection of its own; the answer is still to come."""
        connection = Connection(self._site.balancer.address, QUEUE_S + 10)
        connection.send(request_bytes(target, fields=self.fields, close=True))
        return connection


def visitors_of_two_servers(site: Site) -> tuple[Visitor, Visitor]:
    first = Visitor(site)
    return first, next(other for other in (Visitor(site) for _ in range(20)) if other.server != first.server)


def test_sessions_wait_for_their_full_server_in_order_while_others_are_served(site: Site) -> None:
    origin = site.origin
    visitor, other = visitors_of_two_servers(site)
    connections = [visitor.send("/hold")]
    try:
        origin.wait_for_in_flight(1)
        begun = len(origin.arrivals)
        for turn in range(5):
            connections.append(visitor.send(f"/?turn={turn}"))
            site.wait_for_line(visitor.server, turn + 1)
        assert other.get().value("Set-Cookie") is None
        newcomer = Visitor(site)
        assert newcomer.server != visitor.server
        assert [arrival.server for arrival in origin.arrivals[begun:]] == [other.server, newcomer.server]
        begun = len(origin.arrivals)
        origin.release(visitor.server)
        answers = [connection.response() for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert [(answer.status, answer.value("Set-Cookie")) for answer in answers] == [(200, None)] * 6
    arrived = [(arrival.server, arrival.target) for arrival in origin.arrivals[begun:]]
    assert arrived == [(visitor.server, f"/?turn={turn}") for turn in range(5)]
    assert site.balancer.wait_until_idle(20).is_idle


def test_sessions_wait_for_their_server_in_maintenance(site: Site) -> None:
    visitor = Visitor(site)
    site.set_admin("wait", visitor.server, Admin.MAINTENANCE)
    connections = [visitor.send("/") for _ in range(4)]
    try:
        site.wait_for_line(visitor.server, 4)
        assert Visitor(site).server != visitor.server
        begun = len(site.origin.arrivals)
        site.set_admin("wait", visitor.server, Admin.READY)
        assert [connection.response().status for connection in connections] == [200] * 4
    finally:
        site.set_admin("wait", visitor.server, Admin.READY)
        for connection in connections:
            connection.close()
    assert site.origin.order(begun) == [visitor.server] * 4
    assert site.balancer.wait_until_idle(20).is_idle


def test_a_visitor_who_leaves_the_line_holds_up_nobody(site: Site) -> None:
    visitor = Visitor(site)
    holding, leaving, staying = visitor.send("/hold"), None, None
    try:
        site.origin.wait_for_in_flight(1)
        leaving = visitor.send("/?leaving")
        site.wait_for_line(visitor.server, 1)
        staying = visitor.send("/?staying")
        site.wait_for_line(visitor.server, 2)
        begun = len(site.origin.arrivals)
        leaving.close()
        site.wait_for_line(visitor.server, 1)
        site.origin.release(visitor.server)
        assert holding.response().status == staying.response().status == 200
    finally:
        for connection in filter(None, (holding, leaving, staying)):
            connection.close()
    assert [arrival.target for arrival in site.origin.arrivals[begun:]] == ["/?staying"]
    assert site.balancer.wait_until_idle(20).is_idle


@pytest.mark.parametrize("pool", ["source", "header"])
def test_a_key_keeps_its_server_and_moves_only_while_that_is_out(site: Site, pool: str) -> None:
    before = site.homes(pool)
    assert set(before) == set(range(SERVERS))
    assert site.homes(pool) == before
    gone = before[0]
    site.set_admin(pool, gone, Admin.MAINTENANCE)
    try:
        moved = site.homes(pool)
        assert site.homes(pool) == moved
    finally:
        site.set_admin(pool, gone, Admin.READY)
    assert [home for home, was in zip(moved, before, strict=True) if was != gone] == [was for was in before if was != gone]
    assert gone not in moved
    assert site.homes(pool) == before


def test_a_request_without_the_field_has_no_session(site: Site) -> None:
    begun = len(site.origin.arrivals)
    for _ in range(2 * SERVERS):
        site.get("header")
    assert set(site.origin.order(begun)) == set(range(SERVERS))
