"""Guards before an exchange: asked for each request, and what they hold is given back when the exchange is over."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from prefork_lb.errors import ConnectFailed, Forbidden
from prefork_lb.proxy.engine import Engine
from prefork_lb.routing.actions import Actions
from prefork_lb.routing.guards import Guard, Passed
from prefork_lb.routing.match import Route, Router
from prefork_lb.routing.template import Facts
from tests.unit.proxy.loopback import Connection, ScriptedServer
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer, refusing


class Counter:
    """A guard that counts what is under way, and lets `most` pass."""

    def __init__(self, most: int = 99) -> None:
        self.asked = self.under_way = 0
        self._most = most

    def __call__(self, facts: Facts) -> Passed:
        self.asked += 1
        if self.under_way >= self._most:
            raise Forbidden("too many")
        self.under_way += 1
        return Passed(self._leave)

    def _leave(self) -> None:
        self.under_way -= 1


def guarded(rig: Rig, *guards: Guard) -> Engine:
    return Engine(Router([Route("web", actions=Actions(guards=guards))]), {"web": rig.pool}, rig.settings)


def hung(connection: Connection) -> None:
    """Answer with the head and half of the body."""
    connection.head()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")
    connection.head()


@pytest.mark.parametrize("script", [answer(b"hi"), hung])
def test_a_request_is_under_way_until_its_reply_is_closed(script: Callable[[Connection], None]) -> None:
    counter = Counter(1)
    with ScriptedServer(script) as server, Rig(server.address) as rig:
        engine = guarded(rig, counter)
        reply = engine.exchange(request())
        assert counter.under_way == 1
        with pytest.raises(Forbidden):
            engine.exchange(request())
        reply.close()
        reply.close()
        assert counter.under_way == 0 and rig.in_flight == [0]


def test_a_request_that_fails_is_over() -> None:
    counter = Counter()
    with Rig(refusing()) as rig, pytest.raises(ConnectFailed):
        guarded(rig, counter).exchange(request())
    assert (counter.asked, counter.under_way) == (1, 0)


def test_the_same_head_is_asked_for_each_time() -> None:
    counter = Counter()
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        engine, again = guarded(rig, counter), request()
        for _ in range(3):
            engine.exchange(again).close()
        assert (counter.asked, counter.under_way) == (3, 0)


def test_who_is_refused_claims_no_server() -> None:
    with Rig(refusing()) as rig:
        with pytest.raises(Forbidden):
            guarded(rig, Counter(0)).exchange(request())
        assert rig.in_flight == [0]
