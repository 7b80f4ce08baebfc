"""The prober against real sockets: what is asked, what passes, and why."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.controller.http_check import BODY_LIMIT_BYTES
from prefork_lb.controller.probe import Probe, Prober
from prefork_lb.net.address import Address
from tests.unit.controller.answering import DEADLINE_S, Serve, answer, hangs, http, says, unused_address


def test_a_good_answer_passes_and_says_how_long_it_took(prober: Prober, serve: Serve) -> None:
    outcome = prober.probe(http(serve(says(answer())).address))
    assert outcome.passed
    assert outcome.reason.startswith("200 in ") and outcome.reason.endswith("s")
    assert 0 < outcome.seconds < DEADLINE_S


def test_the_request_is_what_the_probe_says(prober: Prober, serve: Serve) -> None:
    server = serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
    assert prober.probe(http(server.address, method="HEAD", path="/health?deep=1", host="www.example",
                             headers=(("X-Token", "secret"),))).passed
    start, *fields = server.heads[0].decode().split("\r\n")[:-2]
    assert start == "HEAD /health?deep=1 HTTP/1.1"
    assert {"Host: www.example", "User-Agent: prefork_lb-check", "X-Token: secret"} <= set(fields)


def test_a_field_of_the_probe_takes_the_place_of_our_own(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()))
    assert prober.probe(http(server.address, headers=(("user-agent", "mine"),))).passed
    assert server.heads[0].lower().count(b"user-agent:") == 1 and b"mine" in server.heads[0]


def test_without_a_host_it_is_the_address(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()))
    prober.probe(http(server.address))
    assert b"Host: 127.0.0.1:%d\r\n" % server.address.port in server.heads[0]


def test_the_environment_s_proxy_is_not_used(prober: Prober, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = serve(says(answer())), serve(says(answer()))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    assert prober.probe(http(server.address)).passed
    assert (server.connections, proxy.connections) == (1, 0)


def test_a_wrong_status_tells_what_was_expected(prober: Prober, serve: Serve) -> None:
    outcome = prober.probe(http(serve(says(answer(status="500 No"))).address, statuses=frozenset([*range(200, 400), 404])))
    assert outcome[:2] == (False, "status 500, expected 200-399, 404")


@pytest.mark.parametrize(("statuses", "passed"), [(range(200, 400), True), (range(200, 300), False)])
def test_a_redirect_is_judged_and_not_followed(prober: Prober, serve: Serve, statuses: range, passed: bool) -> None:
    server = serve(says(answer(status="302 Found", fields=b"Location: /elsewhere\r\nSet-Cookie: a=b\r\n")))
    probe = http(server.address, statuses=frozenset(statuses))
    assert prober.probe(probe).passed is passed
    assert prober.probe(probe).passed is passed
    assert [head.split()[1] for head in server.heads] == [b"/", b"/"]
    assert b"cookie" not in server.heads[1].lower()


@pytest.mark.parametrize(("body", "more", "passed", "reason"), [
    (b"all is ready", {"text": "ready"}, True, "200 in"),
    (b"all is not", {"text": "ready"}, False, "text 'ready' not found"),
    (b"ready-17", {"pattern": r"^ready-\d+$"}, True, "200 in"),
    (b"ready-x", {"pattern": r"^ready-\d+$"}, False, r"pattern '^ready-\\d+$' not found"),
    (b"ready-17", {"text": "-17", "pattern": "^steady"}, False, "pattern '^steady' not found"),
    ("gr\u00fcn".encode(), {"text": "gr\u00fcn"}, True, "200 in"),
    (bytes(BODY_LIMIT_BYTES - 5) + b"ready", {"text": "ready"}, True, "200 in"),
    (bytes(BODY_LIMIT_BYTES - 4) + b"ready", {"text": "ready"}, False, "text 'ready' not found"),
])
def test_the_body_is_searched(prober: Prober, serve: Serve, body: bytes, more: dict[str, str], passed: bool, reason: str) -> None:
    outcome = prober.probe(http(serve(says(answer(body))).address, **more))
    assert (outcome.passed, outcome.reason[:len(reason)]) == (passed, reason)


def test_the_body_s_charset_is_heeded(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer("gr\u00fcn".encode("latin-1"), fields=b"Content-Type: text/plain; charset=iso-8859-1\r\n")))
    assert prober.probe(http(server.address, text="gr\u00fcn")).passed


def test_a_chunked_body_is_searched(prober: Prober, serve: Serve) -> None:
    server = serve(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n"))
    assert prober.probe(http(server.address, text="ready")).passed


def test_a_port_of_its_own_is_checked(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer()))
    probe = http(unused_address(), port=server.address.port)
    assert prober.probe(probe).passed
    assert b"Host: 127.0.0.1:%d\r\n" % server.address.port in server.heads[0]


def test_http_over_a_unix_socket(prober: Prober, serve: Serve, tmp_path: Path) -> None:
    server = serve(says(answer()), path=tmp_path / "s")
    assert prober.probe(http(server.address, text="ready", port=1)).passed
    assert b"Host: localhost\r\n" in server.heads[0]
    assert prober.probe(http(Address(path=str(tmp_path / "none"))))[:2] == (False, "no such file or directory")


def test_tcp_needs_a_connection_only(prober: Prober, serve: Serve) -> None:
    server = serve(hangs)
    outcome = prober.probe(Probe("tcp", server.address))
    assert outcome.passed and outcome.reason.startswith("connected in ")
    assert prober.probe(Probe("tcp", unused_address()))[:2] == (False, "connection refused")
    assert prober.probe(Probe("tcp", unused_address(), port=server.address.port)).passed
