"""What a request holds of its exchange when that is over, for those who count and log exchanges."""
from __future__ import annotations

import pytest

from prefork_lb.errors import ClientGone, ConnectFailed, NoUsableServer, ProxyError, TruncatedBody, UpstreamError
from prefork_lb.proxy.request import FINISHED, Request, tell_all
from tests.unit.proxy.loopback import ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer, answer_once, refusing


def ended(asked: Request, error: Exception | None = None) -> Request:
    asked.end(asked.answered_at + 1, 0, error, None)
    return asked


def test_an_answer_leaves_its_instants_and_its_server() -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        asked = request(b"POST", Source(b"hello"), [(b"Content-Length", b"5")])
        reply = rig.exchange(asked)
        asked.end(asked.answered_at + 1, 2, None, reply)
        reply.close()
    assert asked.plan is not None and asked.plan.pool is rig.pool
    assert 0 < asked.leased_at <= asked.answered_at and 0 < asked.connect_s <= asked.answered_at - asked.leased_at
    assert (asked.server, asked.status, asked.bytes_in, asked.bytes_out) == (rig.servers[0], 200, 5, 2)
    assert (asked.attempts, asked.retries, asked.failures, asked.ending, asked.error) == (1, 0, (), FINISHED, "")


def test_a_failed_attempt_is_there_with_its_server_and_its_phase() -> None:
    closed = refusing()
    with ScriptedServer(answer(b"hi")) as server, Rig(closed, server.address) as rig:
        asked = request()
        reply = rig.exchange(asked)
        asked.end(asked.answered_at, 2, None, reply)
        reply.close()
    assert (asked.attempts, asked.retries, asked.server, asked.ending) == (2, 1, rig.servers[1], FINISHED)
    (failure,) = asked.failures
    assert failure.startswith(f"{closed}: connect: ")


def test_a_repeat_after_a_stale_connection_is_an_attempt_and_no_retry() -> None:
    with ScriptedServer(answer_once(b"hi"), answer(b"again")) as server, Rig(server.address) as rig:
        rig.fetch()
        asked = request()
        rig.exchange(asked).close()
    assert (asked.attempts, asked.retries) == (2, 0)


def test_a_request_without_an_answer_tells_of_the_last_server() -> None:
    with Rig(refusing()) as rig:
        asked = request()
        with pytest.raises(ConnectFailed) as caught:
            rig.exchange(asked)
        ended(asked, caught.value)
    assert (asked.status, asked.server, asked.ending) == (502, rig.servers[0], "server failed")
    assert asked.error.startswith("connect: ")
    assert asked.leased_at and not asked.answered_at


def test_a_request_that_no_server_could_take_claimed_none() -> None:
    asked = request()
    ended(asked, NoUsableServer("pool web: no server is left to try"))
    assert (asked.status, asked.server, asked.leased_at, asked.ending) == (503, None, 0.0, "no server")


@pytest.mark.parametrize(("error", "status"), [(ClientGone("left"), 499), (TruncatedBody("cut"), 200), (OSError("disk"), 200)])
def test_an_error_behind_the_head_of_the_answer(error: Exception, status: int) -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        asked = request()
        reply = rig.exchange(asked)
        asked.end(asked.answered_at, 1, error, reply)
        reply.close()
    assert asked.status == status
    assert asked.ending == (error if isinstance(error, ProxyError) else ProxyError()).ending != FINISHED


def test_every_error_has_words_of_its_own_for_the_log() -> None:
    assert {UpstreamError.ending, ClientGone.ending, NoUsableServer.ending, ProxyError.ending, FINISHED} == {
        "server failed", "client left", "no server", "internal error", "finished"}


def test_several_listeners_all_hear() -> None:
    heard: list[str] = []
    both = tell_all([lambda request: heard.append("one"), lambda request: heard.append("two")])
    assert both is not None and tell_all([]) is None
    both(request())
    assert heard == ["one", "two"]
