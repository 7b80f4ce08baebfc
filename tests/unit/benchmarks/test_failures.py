"""The parts of the failure benchmark that need no servers."""
from __future__ import annotations

import json
import signal
import tomllib
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks.failing_servers import Record, read_answer
from benchmarks.failures import (
    CONTENDERS,
    SCENARIOS,
    Scenario,
    Setup,
    by_kind,
    figures,
    haproxy_text,
    nginx_text,
    percentile,
    prefork_lb_text,
    recovery_s,
    share_percent,
)

PORTS = (7001, 7002, 7003, 7004)


def record(start_s: float, server: str = "2", status: int = 200, latency_s: float = 0.03, broken: str = "") -> Record:
    return Record(start_s, latency_s, 0.0, status, broken, server)


def steady(servers: Callable[[float], str], seconds: float, rate: int = 100) -> list[Record]:
    """`rate` requests a second, each to the server that `servers` names for its start."""
    return [record(number / rate, servers(number / rate)) for number in range(int(seconds * rate))]


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (99.5, 100), (100, 100), (0, 1)])
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_few_values_have_the_largest_as_p99() -> None:
    assert percentile([1.0, 3.0, 2.0], 99) == 3.0
    assert percentile([], 99) is None


def test_the_fair_share_is_a_quarter() -> None:
    assert share_percent([record(0, server) for server in "1234"]) == 100
    assert share_percent([record(0, "1")]) == 400
    assert share_percent([record(0, "2")]) == 0


def test_answers_of_the_proxy_itself_count_for_no_server() -> None:
    assert share_percent([record(0, "1"), record(0, "2"), record(0, "", 502)]) == 200
    assert share_percent([record(0, "", 502)]) is None


def test_recovery_is_when_the_share_comes_back() -> None:
    turn = iter("1234" * 1000)
    records = steady(lambda at: next(turn) if at >= 4 else "2", 8)
    # The share is back at 4.0, so the first window of 0.5 s that is half full of it begins at 3.75, or a step later.
    assert recovery_s(records, 3.0) == pytest.approx(0.8, abs=0.1)
    assert recovery_s(records, 5.0) == 0.0


def test_a_server_that_stays_away_has_no_recovery() -> None:
    assert recovery_s(steady(lambda at: "2", 5), 3.0) is None
    assert recovery_s([], 3.0) is None


def test_a_window_that_the_load_does_not_fill_says_nothing() -> None:
    assert recovery_s(steady(lambda at: "1" if at > 4.9 else "2", 5), 4.8) is None


def test_errors_are_counted_by_what_the_client_saw() -> None:
    records = [record(0), record(0, "1", 503), record(0, "", 0, broken="closed"), record(0, "1", 503), record(0, "", 404)]
    assert by_kind(records) == "503:2 closed:1 404:1"


def test_errors_under_way_when_the_server_fails_belong_to_it() -> None:
    scenario = Scenario("errors", signal.SIGKILL, start_s=3, length_s=10)
    records = [record(2.99, "", 0, broken="closed"), record(4, "", 502), record(6, "", 502), record(14, "", 502), record(20)]
    assert figures(scenario, records) == {
        "requests": 2, "errors": 3, "kinds": "502:2 closed:1", "errors after 2 s": 1, "errors when well": 1}


def test_quick_errors_do_not_improve_the_latency() -> None:
    scenario = Scenario("status", signal.SIGKILL, start_s=0, length_s=10)
    found = figures(scenario, [record(1, latency_s=0.1), record(2, "1", 503, latency_s=0.0)])
    assert found["mean ms"] == pytest.approx(100)
    assert found["errors"] == 1
    assert found["share %"] == 200
    assert found["half share after s"] is None


def test_the_latency_after_is_that_of_two_seconds() -> None:
    scenario = Scenario("latency", signal.SIGSTOP, start_s=0, length_s=1)
    times = {0.5: 9, 1: 0.2, 2.9: 0.4, 3: 9}
    found = figures(scenario, [record(start_s, latency_s=latency_s) for start_s, latency_s in times.items()])
    assert found["p99 ms after"] == pytest.approx(400)
    assert found["p99 ms"] == pytest.approx(9000)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_figures_also_of_nothing(name: str) -> None:
    assert figures(SCENARIOS[name], [])["requests"] == 0


def test_records_survive_the_way_to_the_parent() -> None:
    sent = record(1.5, "1", 503)
    assert Record(*json.loads(json.dumps(astuple(sent)))) == sent


@pytest.mark.parametrize(("data", "expected"), [
    (b"HTTP/1.1 200 OK\r\nX-Server: 3\r\nContent-Length: 2\r\n\r\nok", (200, "3", True)),
    (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", (503, "", False)),
    (b"HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", (502, "", True)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", None),
])
def test_an_answer_is_read_when_it_is_complete(data: bytes, expected: tuple[int, str, bool] | None) -> None:
    assert read_answer(data) == expected


def test_nginx_is_told_not_to_retry() -> None:
    text = nginx_text(Setup(PORTS), 8000, Path("/scratch"), CONTENDERS["nginx-roundrobin"])
    assert "proxy_next_upstream off;" in text
    assert "server 127.0.0.1:7001 max_fails=1;" in text
    assert "least_conn" not in text and "proxy_read_timeout" not in text
    assert text.count("{") == text.count("}")


def test_nginx_with_everything() -> None:
    text = nginx_text(Setup(PORTS, True, 0, 2.0), 8000, Path("/scratch"), CONTENDERS["nginx-leastconn"])
    for directive in ("zone b 64k; least_conn;", "max_fails=0;", "proxy_read_timeout 2s;", "proxy_next_upstream_tries 3;",
                      "proxy_next_upstream error timeout http_500 http_502 http_503 http_504;", "listen 127.0.0.1:8000 "):
        assert directive in text


def test_haproxy_without_and_with_retries() -> None:
    off, on = haproxy_text(Setup(PORTS), 8000, "leastconn"), haproxy_text(Setup(PORTS, True, 1, 2.0), 8000, "roundrobin")
    for text, lines in ((off, ("retries 0", "no option redispatch", "timeout server 60s", "balance leastconn")),
                        (on, ("retries 2", "option redispatch 1", "timeout server 2s", "balance roundrobin"))):
        assert set(lines) <= {line.strip() for line in text.splitlines()}
    assert "retry-on" in on and "retry-on" not in off


def test_prefork_lb_without_and_with_retries() -> None:
    off, on = (tomllib.loads(prefork_lb_text(setup, 8000)) for setup in (Setup(PORTS), Setup(PORTS, True, 1, 2.0)))
    assert off["pools"]["web"]["retries"] == {"attempts": 1}
    assert "proxy" not in off
    assert on["pools"]["web"]["retries"] == {
        "attempts": 3, "on": ["connect", "reset", "timeout"], "statuses": [500, 502, 503, 504]}
    assert on["proxy"]["timeouts"] == {"response": 2}
    assert on["pools"]["web"]["servers"] == [f"127.0.0.1:{port}" for port in PORTS]
