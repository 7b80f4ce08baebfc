"""`prefork_lb.cli.traffic` against real servers on loopback."""
from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from click.testing import CliRunner

from prefork_lb.cli.main import main
from prefork_lb.cli.traffic import RequestResult, TimeSummary, TrafficReport, check_url, percentile, send_traffic


@contextmanager
def served(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that answers every GET by `answer`; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def reply(handler: BaseHTTPRequestHandler, status: int = 200, name: str | None = "one", body: bytes = b"hello") -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    if name is not None:
        handler.send_header("X-Served-By", name)
    handler.end_headers()
    handler.wfile.write(body)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_request_is_counted_once_under_the_server_that_answered_it() -> None:
    arrivals = iter(range(1000))
    with served(lambda handler: reply(handler, name=("one", "two", "two")[next(arrivals) % 3])) as url:
        report = send_traffic(url, 30, 4)
    assert {name: len(answers) for name, answers in report.by_server()} == {"one": 10, "two": 20}
    assert next(arrivals) == 30
    assert report.failed == 0


def test_clients_send_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=10)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        together.wait()  # fewer than four at once would break it, and the connection with it
        reply(handler)

    with served(answer) as url:
        report = send_traffic(url, 8, 4)
    assert (len(report.answers), report.failed) == (8, 0)


def test_a_client_keeps_its_connection() -> None:
    peers = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        peers.add(handler.client_address)
        reply(handler)

    with served(answer) as url:
        send_traffic(url, 12, 1)
    assert len(peers) == 1


def test_a_server_that_says_no_name_is_unnamed() -> None:
    with served(lambda handler: reply(handler, name=None)) as url:
        report = send_traffic(url, 2, 1)
    assert [name for name, _ in report.by_server()] == ["(unnamed)"]


@pytest.mark.parametrize(("status", "failed"), [(204, 0), (302, 0), (404, 3), (503, 3)])
def test_a_status_of_400_or_more_is_a_failure(status: int, failed: int) -> None:
    with served(lambda handler: reply(handler, status, body=b"")) as url:
        report = send_traffic(url, 3, 1)
    assert report.failed == failed
    assert [answer.status for answer in report.answers] == [status] * 3


def test_a_refused_connection_is_an_error_with_its_cause_alone() -> None:
    report = send_traffic(f"http://127.0.0.1:{closed_port()}/", 5, 2)
    assert report.failed == 5
    assert report.errors == {"ConnectionRefusedError: Connection refused": 5}


def test_a_body_cut_short_is_an_error() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    with served(answer) as url:
        report = send_traffic(url, 1, 1)
    assert report.failed == 1
    assert "IncompleteRead" in next(iter(report.errors))


def test_a_silent_server_is_an_error_after_the_timeout() -> None:
    release = threading.Event()
    with served(lambda handler: (release.wait(20), reply(handler))[1]) as url:
        report = send_traffic(url, 1, 1, timeout_s=0.2)
        release.set()
    assert report.failed == 1
    assert "imed out" in next(iter(report.errors))


def test_an_interrupt_leaves_what_was_answered_until_then() -> None:
    seen: list[RequestResult] = []

    def interrupt(answer: RequestResult) -> None:
        seen.append(answer)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with served(reply) as url:
        report = send_traffic(url, 10_000, 2, on_answer=interrupt)
    assert report.answers == seen
    assert len(seen) == 3


def test_an_unexpected_exception_in_a_client_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> requests.Response:
        raise ZeroDivisionError("seen")

    monkeypatch.setattr(requests.Session, "get", broken)
    with pytest.raises(ZeroDivisionError, match="seen"):
        send_traffic("http://127.0.0.1/", 5, 2)


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with served(reply) as url:
        assert send_traffic(url, 2, 1).failed == 0


@pytest.mark.parametrize(("percent", "expected"), [(0, 15), (5, 15), (30, 20), (40, 20), (50, 35), (100, 50)])
def test_percentiles_are_of_the_nearest_rank(percent: float, expected: float) -> None:
    # The worked example of the nearest-rank method.
    assert percentile([15, 20, 35, 40, 50], percent) == expected


def test_times_are_in_milliseconds() -> None:
    assert TimeSummary.of([0.003, 0.001, 0.002]) == TimeSummary(mean_ms=2.0, p50_ms=2.0, p95_ms=3.0, max_ms=3.0)


def test_there_are_no_times_of_nothing() -> None:
    with pytest.raises(ValueError, match="no request"):
        TimeSummary.of([])


def test_the_dictionary_has_every_server_and_error() -> None:
    answers = [RequestResult("b", 200, 0.002), RequestResult("a", 503, 0.001), RequestResult("", 0, 1.0, "gone"),
               RequestResult("b", 200, 0.004)]
    found = TrafficReport(answers, 0.5).as_dict()
    assert found["requests"] == 4
    assert found["failed"] == 2
    assert found["errors"] == {"gone": 1}
    assert found["servers"] == {
        "a": {"requests": 1, "mean_ms": 1.0, "p50_ms": 1.0, "p95_ms": 1.0, "max_ms": 1.0, "statuses": {"503": 1}},
        "b": {"requests": 2, "mean_ms": 3.0, "p50_ms": 2.0, "p95_ms": 4.0, "max_ms": 4.0, "statuses": {"200": 2}},
    }


@pytest.mark.parametrize("timeout", ["nan", "inf", "0", "1e300"])
def test_a_time_that_sockets_do_not_take_is_told(timeout: str) -> None:
    found = CliRunner().invoke(main, ["traffic", "http://localhost:1/", "--timeout", timeout], catch_exceptions=False)
    assert found.exit_code == 2 and "Invalid value for '--timeout'" in found.stderr


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1/", "http://", "http://host:99999/", "http://[::1/",
                                 "http://a..b/", f"http://{'x' * 64}/"])
def test_a_wrong_url_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="http://127.0.0.1:8000/|Port|IPv6|label"):
        check_url(url)


def test_a_right_url_passes() -> None:
    assert check_url("https://[::1]:8443/x?y=1") == "https://[::1]:8443/x?y=1"
