"""Which numbers an exchange goes into when it is over: one of a server, of its pool, or of the instance, and never two."""
from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from prefork_lb.errors import BadRequest, ClientGone, NoUsableServer, Overloaded, TruncatedBody
from prefork_lb.proxy.counting import counting
from prefork_lb.proxy.request import NO_HEAD, Request
from tests.unit.proxy.loopback import ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer


@dataclass
class Counted:
    """A tally that keeps what it is told."""

    calls: list[tuple[object, ...]] = field(default_factory=list)

    def count_answer(self, *values: object) -> None:
        self.calls.append(("answer", *values))

    def count_own(self, *values: object) -> None:
        self.calls.append(("own", *values))

    def count_without_pool(self, *values: object) -> None:
        self.calls.append(("no pool", *values))


def counted(asked: Request) -> tuple[object, ...]:
    tally = Counted()
    counting(tally)(asked)  # type: ignore[arg-type]
    (call,) = tally.calls
    return call


@pytest.mark.parametrize("error", [None, ClientGone("left"), TruncatedBody("cut")])
def test_an_answer_counts_for_its_server_by_its_own_status_whatever_became_of_it(error: Exception | None) -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        asked = request(b"POST", Source(b"hello"), [(b"Content-Length", b"5")])
        asked.started = 1.0
        reply = rig.exchange(asked)
        asked.end(3.5, 2, error, reply)
        reply.close()
    assert counted(asked) == ("answer", rig.servers[0].slot, rig.pool.number, 200, 5, 2, 2.5)


@pytest.mark.parametrize(("error", "status"), [
    (NoUsableServer("none"), 503), (ClientGone("left"), 499), (ValueError("policy"), 500)])
def test_what_a_pool_has_no_answer_for_counts_for_the_pool(error: Exception, status: int) -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        asked = request()
        rig.exchange(asked).close()
        asked.started = 1.0
        asked.end(1.25, 0, error, None)
    assert counted(asked) == ("own", rig.pool.number, status, 0.25)


@pytest.mark.parametrize(("error", "status"), [
    (BadRequest("no host"), 400), (Overloaded("busy"), 503), (ClientGone("left"), 499)])
def test_what_came_to_no_pool_counts_for_the_instance(error: Exception, status: int) -> None:
    asked = request()
    asked.end(1.0, 0, error, None)
    assert counted(asked) == ("no pool", status)
    without_head = Request(NO_HEAD, asked.peer, asked.body, asked.downstream)
    without_head.end(1.0, 0, error, None)
    assert counted(without_head) == ("no pool", status)


def test_a_tunnel_takes_until_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        asked = request()
        reply = rig.exchange(asked)
        reply.close()
    reply.status = 101
    asked.started, asked.answered_at = 10.0, 10.5
    asked.end(5000.0, 77, None, reply)
    assert counted(asked)[-3:] == (0, 77, 0.5)
