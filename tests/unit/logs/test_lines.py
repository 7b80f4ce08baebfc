"""Lines of the access log: every field, hostile bytes, templates."""
from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from prefork_lb.errors import ClientGone, ConnectFailed
from prefork_lb.log_schema import FIELDS, PRESETS, template_parts
from prefork_lb.logs.lines import JSONLines, TemplateLines
from prefork_lb.logs.values import VALUES
from prefork_lb.proxy.request import NO_HEAD, Request
from prefork_lb.proxy.tracing import Identity
from prefork_lb.routing.guards import Passed
from tests.unit.logs.records import PEER, record, with_session
from tests.unit.proxy.loopback import Client, ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request
from tests.unit.proxy.test_engine import answer
from tests.unit.upstream.parts import new_server


def parsed(request: Request, **settings: Any) -> dict[str, Any]:
    line = JSONLines(**settings)(request)
    assert line.count(b"\n") == 1 and line.endswith(b"}\n")
    found: dict[str, Any] = json.loads(line)
    return found


def refused_head() -> Request:
    request = Request(NO_HEAD, PEER, Source(), Client(), started=100.0)
    request.end(100.001, 9, ClientGone("left"), None)
    return request


def everything() -> Request:
    request = record([(b"Host", b"a.test"), (b"Referer", b"http://b.test/"), (b"User-Agent", b"curl/8"), (b"X-Tenant", b"t1")],
                     b"/a?b=c", server=new_server(1))
    request.attempts, request.retries, request.queue_s, request.connect_s, request.bytes_in = 2, 1, 0.003, 0.001, 7
    request.failures = ("127.0.0.1:8000: connect: refused",)
    request.identity = Identity(b"r1", b"t1", b"")
    request.passed = Passed(user="ü\"".encode())
    return request


@pytest.mark.parametrize("request_", [record(), everything(), refused_head(), record(error=ConnectFailed("refused")),
                                      record(server=new_server(0), error=ConnectFailed("refused")),
                                      with_session(record(), new_server(3))])
def test_a_line_in_json_has_the_values_of_the_schema(request_: Request) -> None:
    found = parsed(request_)
    expected: dict[str, Any] = {}
    for name, get in VALUES.items():
        value = get(request_)
        if isinstance(value, list):
            expected[name] = [each.decode() for each in value]
        elif isinstance(value, bytes):
            expected[name] = value.decode()
        elif value is not None:
            expected[name] = round(value, 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == expected
    for name, value in found.items():
        kinds = {"string": str, "number": (int, float), "array": list, "object": dict}
        assert isinstance(value, kinds[FIELDS[name].type]), name


def test_every_field_of_the_schema_has_a_value_and_the_order_of_the_schema() -> None:
    found = parsed(record([(b"Host", b"a"), (b"Referer", b"b"), (b"User-Agent", b"c"), (b"X-A", b"d")], error=ConnectFailed("e"),
                          server=new_server(0), page=[(b"X-B", b"e")]), request_fields=["x-a"], response_fields=["X-B"])
    missing = set(FIELDS) - set(found)
    assert missing == {"first_byte_ms", "failures", "request_id", "trace_id", "user"}
    order = [name for name in found if name != "request_fields"]
    assert order == [name for name in FIELDS if name in order]


def test_the_phases_are_milliseconds() -> None:
    found = parsed(everything())
    assert (found["queue_ms"], found["connect_ms"], found["first_byte_ms"], found["total_ms"]) == (3.0, 1.0, 8.0, 16.0)


def test_a_head_is_worked_out_once() -> None:
    line, request = JSONLines(), record()
    line(request)
    assert request.plan is not None and b'"pool":"web"' in request.plan.logged
    request.plan.logged = request.plan.logged.replace(b"web", b"kept")
    assert b'"pool":"kept"' in line(request)


@pytest.mark.parametrize("value", [b'say "hi" \\', "Größe ☃ \U0001f40d".encode(), b"a\x9bb\xff", b"\xc2\x9b31m",
                                   "\u2028".encode(), "\U000e0001".encode(), b"tab\there", b"x" * 600])
def test_no_byte_of_a_client_leaves_its_string(value: bytes) -> None:
    line = JSONLines()(record([(b"User-Agent", value)]))
    assert line.decode()[:-1].isprintable()
    found = json.loads(line)["user_agent"]
    text = value.decode("utf-8", "backslashreplace")
    assert found == (text if len(value) <= 512 else text[:512] + "...")


def test_only_fields_that_are_asked_for_are_there() -> None:
    fields = [(b"Host", b"a"), (b"Authorization", b"Basic c2VjcmV0"), (b"Cookie", b"id=secret"), (b"X-Tenant", b"t1")]
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: id=secret\r\nX-Cache: hit\r\n\r\n"
    plain = JSONLines()(record(fields, answer=answer))
    assert b"c2VjcmV0" not in plain and b"secret" not in plain and b"t1" not in plain
    found = parsed(record(fields, answer=answer), request_fields=["X-Tenant", "X-None"], response_fields=["x-cache"])
    assert (found["request_fields"], found["response_fields"]) == ({"x-tenant": "t1"}, {"x-cache": "hit"})


@pytest.mark.parametrize(("request_", "why"), [
    (record(), "policy"), (record(usable=1), "only one"), (record(key=True), "key"), (record(is_trial=True), "trial"),
    (record(server=new_server(1, backup=True)), "backup"), (everything(), "another attempt"),
    (with_session(record(), new_server(5)), "policy"),
])
def test_why_a_server_was_picked(request_: Request, why: str) -> None:
    assert parsed(request_)["picked"] == why


def test_what_became_of_a_session() -> None:
    server = new_server(1)
    assert parsed(record())["session"] == "none"
    assert parsed(with_session(record(), None))["session"] == "new"
    kept = parsed(with_session(record(server=server), server))
    assert (kept["session"], kept["picked"]) == ("kept", "session")
    assert parsed(with_session(record(), server))["session"] == "moved"


def test_the_combined_format() -> None:
    line = TemplateLines(PRESETS["combined"])(everything()).decode()
    assert re.fullmatch(r'192\.0\.2\.1 - ü\\" \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\?b=c HTTP/1\.1" 200 5 '
                        r'"http://b\.test/" "curl/8"\n', line)


def test_a_template_with_fields_of_either_side() -> None:
    request = record([(b"Host", b"a.test"), (b"X-T", b'a"b\x9b')])
    line = TemplateLines("{{{host}}} {request:X-T} {response:x-a} {response:None} {first_byte_ms} {error} {failures}")(request)
    assert line == b'{a.test} a\\"b\\x9b 1 - 8.000 - -\n'


@pytest.mark.parametrize("template", ["{", "{nothing}", "{request}", "{status:x}", "{status!r}", "{request_fields}", "{}"])
def test_what_is_no_template(template: str) -> None:
    with pytest.raises(ValueError):
        template_parts(template)


def test_the_time_is_that_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1764480000.5)
    monkeypatch.setattr("prefork_lb.logs.lines.monotonic", lambda: 100.5)
    line = JSONLines()
    request = record()
    for instant, text in ((100.016, "05:20:00.016"), (100.9996, "05:20:00.999"), (101.0, "05:20:01.000"),
                          (99.25, "05:19:59.250")):
        request.ended_at = instant
        assert json.loads(line(request))["time"] == f"2025-11-30T{text}Z"


def test_what_an_ordinary_exchange_has_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is on the way of every request: values one by one would cost several times what the exchange costs."""
    lines, made = JSONLines(), []
    monkeypatch.setattr(lines, "_about_exchange", lambda request: made.append(request) or b"")
    with ScriptedServer(answer(b"hi")) as server, Rig(server.address) as rig:
        for _ in range(4):
            asked = request()
            reply = rig.exchange(asked)
            reply.close()
            asked.end(rig.settings.clock(), 2, None, reply)
            lines(asked)
    assert len(made) == 2  # that of the first, which had to connect, and that of all others
