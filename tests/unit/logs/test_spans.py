"""Spans of exchanges, and how they are sent."""
from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from prefork_lb.errors import ClientGone
from prefork_lb.logs import spans
from prefork_lb.logs.spans import Span, SpanLog, spans_of
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.request import Request
from prefork_lb.proxy.tracing import Identities
from prefork_lb.routing.match import Route, Router
from prefork_lb.upstream.retries import RetryRules
from tests.support.waiting import wait_until
from tests.unit.logs.records import record
from tests.unit.proxy.loopback import ScriptedServer
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer, refusing
from tests.unit.proxy.test_retrying import BUSY, once


def exchange(rig: Rig, target: bytes = b"/a?sig=key&b=1") -> Request:
    settings = dataclasses.replace(rig.settings, identities=Identities(random.Random(1), 1.0))
    asked = request(target=target, fields=[(b"User-Agent", b"test/1")])
    asked.started = settings.clock()
    reply = Engine(Router([Route("web")]), {"web": rig.pool}, settings).exchange(asked)
    reply.close()
    asked.end(settings.clock(), 2, None, reply)
    return asked


def of(asked: Request) -> list[Span]:
    assert asked.identity is not None and asked.identity.trace is not None
    return spans_of(asked, asked.identity.trace, 1e9)


def test_each_attempt_has_a_span_that_its_server_is_told() -> None:
    rules = RetryRules(attempts=3, statuses=frozenset({503}), backoff_s=0)
    with ScriptedServer(once(BUSY)) as busy, ScriptedServer(answer(b"hi")) as good, \
            Rig(refusing(), busy.address, good.address, rules=rules) as rig:
        asked = exchange(rig)
        own, refused, failed, answered = of(asked)
        heads = [server.requests[0] for server in (busy, good)]
    assert (own.name, own.is_client, own.parent_id, own.error) == ("GET", False, "", None)
    assert own.attributes["url.query"] == "sig=REDACTED&b=1" and own.attributes["server.address"] == "a.test"
    assert {span.trace_id for span in (refused, failed, answered)} == {own.trace_id}
    assert {span.parent_id for span in (refused, failed, answered)} == {own.span_id}
    assert len({span.span_id for span in (own, refused, failed, answered)}) == 4
    for head, span in zip(heads, (failed, answered), strict=True):
        assert f"traceparent: 00-{own.trace_id}-{span.span_id}-01\r\n".encode() in head
    assert [span.attributes.get("error.type") for span in (refused, failed, answered)] == ["connect", "503", None]
    assert [span.attributes.get("http.response.status_code") for span in (refused, failed, answered)] == [None, 503, 200]
    assert [span.attributes.get("http.request.resend_count") for span in (refused, failed, answered)] == [None, 1, 2]
    assert own.begun <= refused.begun <= refused.ended <= failed.begun <= failed.ended <= answered.begun <= own.ended


@pytest.mark.parametrize(("error", "kind"), [(None, None), (ClientGone("left"), "client left")])
def test_an_exchange_that_does_not_finish_is_an_error(error: Exception | None, kind: str | None) -> None:
    asked = record(error=error)
    asked.identity = Identities(random.Random(1), 1.0).of({}, asked.peer)
    (own,) = of(asked)
    assert own.attributes.get("error.type") == kind and (own.error is None) == (error is None)


@pytest.mark.parametrize(("host", "expected"), [
    (b"a.test:81", ("a.test", 81)), (b"[::1]", ("[::1]", None)), (b"[::1]:8", ("[::1]", 8)), (b"", (None, None))])
def test_the_host_is_told_with_its_port(host: bytes, expected: tuple[object, object]) -> None:
    asked = record([(b"Host", host)], b"/\xff")
    asked.identity = Identities(random.Random(1), 1.0).of({}, asked.peer)
    (own,) = of(asked)
    assert (own.attributes.get("server.address"), own.attributes.get("server.port")) == expected
    assert own.attributes["url.path"] == "/\\xff"


def traced() -> Request:
    asked = record()
    asked.identity = Identities(random.Random(), 1.0).of({}, asked.peer)
    return asked


def test_a_collector_that_is_away_costs_spans_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    is_there, sent = threading.Event(), []

    def export(batch: Sequence[Span]) -> bool:
        sent.extend(batch)
        return is_there.is_set()

    log = SpanLog("http://there", export)
    log.write(record())  # without spans
    log.write(record(error=ClientGone("left")))
    for number in range(1, 3):
        log.write(traced())
        wait_until(lambda: len(sent) == number, "tried", 20)  # noqa: B023
    is_there.set()
    log.write(traced())
    log.close()
    assert [message for message in caplog.messages if "spans" in message] == [
        "spans cannot be sent to http://there, they are lost until they can: it does not take them",
        "spans are sent to http://there again; 2 were lost"]


def test_a_collector_that_hangs_holds_nobody_up_takes_no_memory_and_is_told(monkeypatch: pytest.MonkeyPatch,
                                                                            caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(spans, "_MOST_WAITING", 3)
    monkeypatch.setattr(spans, "_BATCH", 1)
    goes_on, begun = threading.Event(), threading.Event()

    def export(batch: Sequence[Span]) -> bool:
        begun.set()
        return goes_on.wait(20)

    log = SpanLog("x", export)
    log.write(traced())
    assert begun.wait(20)
    for _ in range(10):
        log.write(traced())
    assert len(log._waiting) == 3 and log._lost == 7
    assert caplog.messages == ["spans cannot be sent to x, they are lost until they can: it is too slow"]
    goes_on.set()
    log.close()


def test_spans_that_are_off_load_nothing() -> None:
    script = "import prefork_lb.wiring.application, sys; print([name for name in sys.modules if 'opentelemetry' in name])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
