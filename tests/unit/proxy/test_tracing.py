"""What requests are called: taken from trusted proxies, else made; passed on and told."""
from __future__ import annotations

import dataclasses
import json
import random
import re

import pytest

from prefork_lb.errors import BadRequest, ConnectFailed
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.error_pages import error_page
from prefork_lb.proxy.tracing import Identities, Identity, server_timing
from prefork_lb.routing.match import Route, Router
from prefork_lb.wire.forwarded import ClientInfo
from tests.unit.proxy.loopback import ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer

TRUSTED = ClientInfo("10.0.0.1", b"http", 80, True)
STRANGER = ClientInfo("192.0.2.1", b"http", 80, False)
TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
PARENT = b"00-%b-%b-01" % (TRACE, SPAN)


def identity(peer: ClientInfo = TRUSTED, **fields: bytes) -> Identity:
    index = {name.replace("_", "-").encode(): [value] for name, value in fields.items()}
    return Identities(random.Random(1)).of(index, peer)


def test_a_request_without_names_gets_some() -> None:
    found = identity()
    assert re.fullmatch(rb"[0-9a-f]{32}", found.request_id) and found.trace_id == found.request_id
    trace_id = found.trace_id
    assert re.fullmatch(rb"X-Request-ID: %b\r\ntraceparent: 00-%b-[0-9a-f]{16}-00\r\n" % (trace_id, trace_id), found.lines)


def test_the_names_of_a_trusted_proxy_are_passed_on_with_a_span_of_ours() -> None:
    found = identity(x_request_id=b"abc", traceparent=PARENT, tracestate=b"a=1")
    assert (found.request_id, found.trace_id) == (b"abc", TRACE)
    assert re.fullmatch(rb"X-Request-ID: abc\r\ntraceparent: 00-%b-[0-9a-f]{16}-01\r\ntracestate: a=1\r\n" % TRACE, found.lines)
    assert SPAN not in found.lines


def test_a_trace_without_an_id_of_the_request_gives_it() -> None:
    assert identity(traceparent=PARENT).request_id == TRACE


def test_the_names_of_a_stranger_are_not_believed() -> None:
    found = identity(STRANGER, x_request_id=b"abc", traceparent=PARENT, tracestate=b"a=1")
    assert found.request_id != b"abc" and found.trace_id != TRACE and b"tracestate" not in found.lines


@pytest.mark.parametrize("parent", [b"", b"00-%b-%b" % (TRACE, SPAN), b"00-%b-%b-01" % (b"0" * 32, SPAN),
                                    b"00-%b-%b-01" % (TRACE, b"0" * 16), b"ff-%b-%b-01" % (TRACE, SPAN), PARENT.upper()])
def test_a_malformed_trace_is_replaced(parent: bytes) -> None:
    found = identity(traceparent=parent, tracestate=b"a=1")
    assert found.trace_id != TRACE and b"tracestate" not in found.lines


@pytest.mark.parametrize("name", [b"", b'a"b', b"a b", b"x" * 129, b"\xff"])
def test_a_malformed_id_is_replaced(name: bytes) -> None:
    assert identity(x_request_id=name).request_id != name


@pytest.mark.parametrize("state", [b"a\xff", b"a" * 513])
def test_a_state_that_is_no_text_stops_here(state: bytes) -> None:
    assert b"tracestate" not in identity(traceparent=PARENT, tracestate=state).lines


def named(rig: Rig, tells_times: bool = False) -> Engine:
    """The rig's engine, with names for requests."""
    settings = dataclasses.replace(rig.settings, identities=Identities(random.Random(1)), tells_times=tells_times)
    return Engine(Router([Route("web")]), {"web": rig.pool}, settings)


@pytest.mark.parametrize(("sample", "flags", "is_traced"), [
    (None, b"01", False), (0.0, b"01", True), (1.0, b"00", False), (1.0, b"01", True), (0.0, b"03", True), (1.0, b"02", False)])
def test_a_parent_decides_whether_there_are_spans(sample: float | None, flags: bytes, is_traced: bool) -> None:
    parent = b"00-%b-%b-%b" % (TRACE, SPAN, flags)
    found = Identities(random.Random(1), sample).of({b"traceparent": [parent]}, TRUSTED)
    assert (found.trace is not None) is is_traced and found.lines.endswith(b"-%b\r\n" % flags)
    assert found.trace is None or (found.trace.trace_id, found.trace.parent_id) == (TRACE, SPAN)


@pytest.mark.parametrize("peer", [TRUSTED, STRANGER])
@pytest.mark.parametrize(("sample", "flags"), [(None, b"00"), (0.0, b"00"), (1.0, b"01")])
def test_without_a_parent_the_share_decides(sample: float | None, flags: bytes, peer: ClientInfo) -> None:
    index = {b"traceparent": [PARENT]} if peer is STRANGER else {}
    found = Identities(random.Random(1), sample).of(index, peer)
    assert (found.trace is not None) is (flags == b"01") and found.lines.endswith(b"-%b\r\n" % flags)
    assert found.trace is None or found.trace.parent_id == b""


def test_a_share_of_requests_has_spans() -> None:
    identities = Identities(random.Random(1), 0.25)
    assert 200 < sum(identities.of({}, STRANGER).trace is not None for _ in range(1000)) < 300


def test_a_server_gets_the_names_and_no_others() -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        engine = named(rig)
        for _ in range(2):  # the second time the head's plan is there already
            asked = request(fields=[(b"X-Request-ID", b"forged"), (b"X_Request_ID", b"forged"), (b"Traceparent", PARENT),
                                    (b"Tracestate", b"a=1"), (b"X-Other", b"1")])
            engine.exchange(asked).close()
            assert asked.identity is not None
            head = server.requests[-1]
            assert head.count(b"X-Request-ID: %b\r\n" % asked.identity.request_id) == 1 and head.endswith(b"\r\n\r\n")
            assert b"forged" not in head and TRACE not in head and b"a=1" not in head and b"X-Other: 1\r\n" in head
        heads = server.requests
        assert len({re.search(rb"X-Request-ID: (\w+)", head)[1] for head in heads}) == 2


def test_without_names_the_fields_of_a_client_travel() -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        asked = request(fields=[(b"X-Request-ID", b"mine")])
        rig.exchange(asked).close()
        assert b"X-Request-ID: mine\r\n" in server.requests[0] and asked.identity is None


def test_a_body_follows_the_names() -> None:
    with ScriptedServer(lambda connection: (connection.head(), connection.send(b"HTTP/1.1 204 No\r\n\r\n"))[0]) as server, \
            Rig(server.address) as rig:
        named(rig).exchange(request(b"POST", Source(b"abc"), [(b"Content-Length", b"3")])).close()
        assert b"traceparent: 00-" in server.requests[0]


def test_a_refused_request_has_a_name() -> None:
    with Rig() as rig:
        asked = request(fields=[(b"Host", b"another")])
        with pytest.raises(BadRequest):
            named(rig).exchange(asked)
        assert asked.identity is not None


def test_clients_are_told_how_long_it_took() -> None:
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        reply = named(rig, tells_times=True).exchange(request())
        reply.close()
        ((name, value),) = reply.added
        assert name == b"Server-Timing"
        assert re.fullmatch(rb"lb-queue;dur=0\.0, lb-connect;dur=\d+\.\d, lb-server;dur=\d+\.\d", value)
    assert server_timing(0.0015, 0, 1) == (b"Server-Timing", b"lb-queue;dur=1.5, lb-connect;dur=0.0, lb-server;dur=1000.0")


@pytest.mark.parametrize("accept", ["", "text/html", "application/json"])
def test_an_error_page_tells_the_name(accept: str) -> None:
    fields, page = error_page(ConnectFailed("x"), accept, Identity(b"abc", TRACE, b""))
    assert (b"X-Request-ID", b"abc") in fields
    if accept == "application/json":
        assert json.loads(page)["request_id"] == "abc"
    else:
        assert b"Request ID: abc" in page
    assert b"X-Request-ID" not in dict(error_page(ConnectFailed("x"), accept)[0])
