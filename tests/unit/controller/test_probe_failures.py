"""Checks that fail: what went wrong, and how long that may take."""
from __future__ import annotations

import gzip
import socket
import threading
from pathlib import Path

import pytest

from prefork_lb.controller.probe import Probe, Prober
from prefork_lb.net.address import Address
from prefork_lb.wire import proxy_protocol
from tests.support.descriptors import no_descriptor_left
from tests.unit.controller.answering import (
    DEADLINE_S,
    PROMPT_S,
    SHORT_S,
    Serve,
    Turn,
    answer,
    closes_after,
    drips,
    hangs,
    http,
    resets_after,
    says,
    timed,
    unused_address,
)
from tests.wire import corpus


def test_a_refused_connection(prober: Prober) -> None:
    assert prober.probe(http(unused_address()))[:2] == (False, "connection refused")


def test_a_name_that_does_not_resolve(prober: Prober) -> None:
    outcome = prober.probe(http(Address("no-such-name.invalid", 80)))
    assert not outcome.passed and "does not resolve" in outcome.reason


@pytest.mark.parametrize("turn", [
    pytest.param(hangs, id="hangs"),
    pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Le"), id="stops in the head"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: ", b"x"), id="drips in the head"),
    pytest.param(drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continues for ever"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"), id="drips in the body"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), id="drips chunks"),
])
def test_the_timeout_is_for_the_whole_check(prober: Prober, serve: Serve, turn: Turn) -> None:
    assert timed(prober, http(serve(turn).address, timeout_s=SHORT_S, text="ready"))[:2] == (False, "no answer within 0.5 s")


def test_a_connection_that_is_not_accepted_is_a_timeout(prober: Prober, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        other.connect(str(tmp_path / "s"))  # the queue is full now
        outcome = timed(prober, Probe("tcp", Address(path=str(tmp_path / "s")), timeout_s=SHORT_S))
    assert outcome[:2] == (False, "no connection within 0.5 s")


def test_a_body_that_nobody_looks_at_holds_nothing_up(prober: Prober, serve: Serve) -> None:
    server = serve(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"))
    outcome = timed(prober, http(server.address))
    assert outcome.passed and outcome.seconds < PROMPT_S


@pytest.mark.parametrize(("turn", "reason"), [
    (resets_after(b"HTTP/1.1 200 OK\r\nContent-"), "connection lost before the response: Connection reset by peer"),
    (closes_after(b""), "connection closed before the response"),
    (closes_after(b"SSH-2.0-OpenSSH_9.6\r\n"),
     "connection closed before the response head was whole, which began with b'SSH-2.0"),
    (closes_after(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"), "the head has 1000 fields, at most 100 are allowed"),
    (closes_after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nready"), "connection closed in the middle of the body"),
    (closes_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nrea"), "connection closed in the middle"),
    (closes_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\n"), "not a chunk size"),
    (closes_after(answer(fields=b"Content-Encoding: gzip\r\n")), "the body is not gzip"),
])
def test_a_broken_answer_is_a_failure_with_a_reason(prober: Prober, serve: Serve, turn: Turn, reason: str) -> None:
    outcome = timed(prober, http(serve(turn).address, text="ready"))
    assert (outcome.passed, outcome.reason[:len(reason)]) == (False, reason)


@pytest.mark.parametrize("case", corpus.cases("invalid", "response"), ids=str)
def test_an_answer_that_traffic_refuses_fails_the_check_for_the_same_reason(
        prober: Prober, serve: Serve, case: corpus.Case) -> None:
    method = case.request_method.decode()
    outcome = timed(prober, http(serve(closes_after(case.data)).address, limits=case.limits, method=method))
    assert not outcome.passed
    assert case.expected["message"].lower() in outcome.reason.lower()


@pytest.mark.parametrize("case", [case for case in corpus.cases("valid", "response")
                                  if case.is_complete and case.expected["status"] >= 200], ids=str)
def test_an_answer_that_traffic_takes_passes(prober: Prober, serve: Serve, case: corpus.Case) -> None:
    probe = http(serve(closes_after(case.data)).address, limits=case.limits, method=case.request_method.decode(),
                 statuses=frozenset(range(200, 1000)))
    outcome = timed(prober, probe)
    assert outcome.passed or "in the middle of the body" in outcome.reason, outcome.reason


def test_a_switch_of_protocols_that_nobody_asked_for_is_a_failure(prober: Prober, serve: Serve) -> None:
    server = serve(says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"))
    assert prober.probe(http(server.address))[:2] == (False, "101 Switching Protocols without an Upgrade in the request")


def test_interim_answers_are_passed_over(prober: Prober, serve: Serve) -> None:
    assert prober.probe(http(serve(says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer())).address)).passed


@pytest.mark.parametrize("more", [{}, {"text": "ready"}])
def test_a_body_that_breaks_is_a_failure_though_nobody_looks_at_it(prober: Prober, serve: Serve, more: dict[str, str]) -> None:
    server = serve(closes_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nready\r\n"))
    assert prober.probe(http(server.address, **more))[:2] == (False, "a chunk is longer than its size says: b'ady\\r\\n'")


def test_a_compressed_body_is_searched_though_it_was_not_asked_for(prober: Prober, serve: Serve) -> None:
    server = serve(says(answer(gzip.compress(b"all is ready"), fields=b"Content-Encoding: gzip\r\n")))
    assert prober.probe(http(server.address, text="is ready")).passed


def test_a_resolver_that_hangs_ends_with_the_check(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        over.wait(DEADLINE_S)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    outcome = timed(prober, http(Address("app.test", 80), timeout_s=SHORT_S))
    over.set()
    assert outcome[:2] == (False, "the resolver did not answer within 0.5 s")


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_check_for_which_there_is_no_descriptor_says_nothing_about_the_server(
        prober: Prober, serve: Serve, kind: str) -> None:
    address = serve(says(answer())).address
    with no_descriptor_left():
        outcome = prober.probe(Probe(kind, address))
    assert outcome.passed is None and "Too many open files" in outcome.reason


@pytest.mark.parametrize("version", [1, 2])
def test_a_server_that_expects_a_proxy_header_gets_one_that_names_nobody(prober: Prober, serve: Serve, version: int) -> None:
    server = serve(says(answer()))
    probe = http(server.address, proxy_protocol=version)
    assert [prober.probe(probe).passed for _ in range(2)] == [True, True]
    header = proxy_protocol.proxy_header(version, None, None)
    assert b"".join(server.heads).count(header) == 1, "once a connection"
    other = serve(says(answer()))
    assert prober.probe(http(server.address, port=other.address.port, proxy_protocol=version)).passed
    assert other.heads[0].startswith(b"GET"), "a port of its own is another service"


@pytest.mark.parametrize("more", [
    {"pattern": "("}, {"headers": (("X", "a\r\nb"),)}, {"method": "G T"}, {"path": "/\u00e4\n"}, {"timeout_s": 0.0},
])
def test_a_probe_that_cannot_be_made_fails_and_raises_nothing(prober: Prober, serve: Serve, more: dict[str, object]) -> None:
    server = serve(closes_after(b""))
    outcome = prober.probe(Probe(**{"type": "http", "address": server.address, **more}))  # type: ignore[arg-type]
    assert not outcome.passed and outcome.reason
