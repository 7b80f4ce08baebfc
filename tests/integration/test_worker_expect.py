"""`Expect: 100-continue` on ProxyWorker (RFC 9110 10.1.1): who says 100, when, and what becomes of the body."""
from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Connection, request_bytes, timed
from tests.support.odd_behaviors import behave_oddly
from tests.support.origin import Origin
from tests.support.pattern import pattern
from tests.support.ports import refusing_address
from tests.support.rig import Rig
from tests.support.standstill import undisturbed
from tests.support.waiting import wait_until

EXPECT = ("Expect", "100-continue")
IDLE_S = 1.0
# A worker waits for a second before it says 100 in the server's place. The others of these tests do not come near to that.
SOON_S, STOOD_STILL_S = 0.9, 0.3


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Rig(tmp_path_factory.mktemp("expect")) as rig, Origin(1, behave_oddly) as origin:
        yield Setup(rig.balancer("[proxy.timeouts]\nbody = 60\n" + pool_text(origin.addresses), PROXY, workers=1), origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.balancer.wait_until_idle()


def test_a_client_of_a_mute_server_is_told_to_go_on_after_a_second(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        begin = time.monotonic()
        connection.send(request_bytes("/mute-upload", "POST", fields=[EXPECT, ("Content-Length", "70000")]))
        assert connection.head().startswith(b"HTTP/1.1 100 ")
        assert time.monotonic() - begin > 0.8
        connection.send(bytes(pattern(0, 70_000)))
        assert connection.response("POST").body == b"70000"
        assert connection.request("/").status == 200, "the connection goes on"


def test_a_client_that_sends_its_body_without_waiting_is_not_told(setup: Setup) -> None:
    """Nor does it wait for that: and what it pipelines behind the body is the next request."""
    chunked = [EXPECT, ("Transfer-Encoding", "chunked")]

    def asks() -> None:
        with Connection(setup.balancer.address) as connection, timed() as took:
            connection.send(request_bytes("/mute-upload", "POST", fields=[EXPECT, ("Content-Length", "5")]) + b"hello"
                            + request_bytes("/mute-upload", "PUT", fields=chunked) + b"3\r\nabc\r\n0\r\n\r\n"
                            + request_bytes("/bytes?n=9"))
            first, second, third = connection.response("POST"), connection.response("PUT"), connection.response()
        assert (first.body, second.body, len(third.body)) == (b"5", b"3", 9)
        assert first.interim == second.interim == []
        assert took[0] < SOON_S, "somebody waited for a 100 that nobody needs"

    undisturbed(asks, STOOD_STILL_S)


def test_interim_responses_of_an_eager_server_come_in_order_and_100_once(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/eager-upload", "POST", fields=[EXPECT, ("Content-Length", "5")]))
        assert connection.head().startswith(b"HTTP/1.1 100 ")
        connection.send(b"hello")
        response = connection.response("POST")
    assert [status for status, _ in response.interim] == [103] and response.body == b"5"


@pytest.mark.parametrize("target", ["/mute-upload", "/eager-upload", "/upload"])
def test_an_http_1_0_client_gets_the_final_response_alone(setup: Setup, target: str) -> None:
    """RFC 9110 10.1.1: the expectation of an HTTP/1.0 client is ignored, and its body is there without being asked for."""
    def asks() -> None:
        with Connection(setup.balancer.address) as connection, timed() as took:
            connection.send(request_bytes(target, "POST", version="1.0", fields=[EXPECT], body=bytes(pattern(0, 5))))
            data = b"".join(iter(connection.receive, b""))
        assert data.startswith(b"HTTP/1.1 200 ") and b" 100 " not in data and b" 103 " not in data
        assert took[0] < SOON_S, "somebody waited for a 100 that nobody needs"

    undisturbed(asks, STOOD_STILL_S)


def test_an_http_1_0_client_that_waits_all_the_same_gets_no_100(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/mute-upload", "POST", version="1.0", fields=[EXPECT, ("Content-Length", "5")]))
        connection.sock.settimeout(1.5)
        with pytest.raises(TimeoutError):
            connection.receive()
        connection.sock.settimeout(20)
        connection.send(b"hello")
        assert connection.response("POST").body == b"5"


def test_a_body_behind_an_early_refusal_is_no_request(setup: Setup) -> None:
    """The client sends it after all, and in it something that looks like a request."""
    body = request_bytes("/bytes?n=1&smuggled=1") * 3

    def asks() -> None:
        start = len(setup.origin.arrivals)
        with Connection(setup.balancer.address) as connection:
            connection.send(request_bytes("/refuse-upload", "POST", fields=[EXPECT, ("Content-Length", str(len(body)))]))
            response = connection.response("POST")
            assert (response.status, response.interim, response.body) == (413, [], b"no\n")
            assert (response.value("Connection") or "").lower() == "close"
            with contextlib.suppress(ConnectionError):
                connection.send(body)
            assert connection.ended()
        setup.balancer.wait_until_idle()
        assert [arrival.target for arrival in setup.origin.arrivals[start:]] == ["/refuse-upload"]

    undisturbed(asks, STOOD_STILL_S)


def test_a_client_that_leaves_while_it_waits_for_100_frees_its_server(setup: Setup) -> None:
    gone = setup.origin.peers_gone
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/mute-upload", "POST", fields=[EXPECT, ("Content-Length", "5")]))
        setup.origin.wait_for_in_flight(1)
    wait_until(lambda: setup.origin.peers_gone > gone, "the server's connection was closed")
    setup.balancer.wait_until_idle()


def test_a_client_that_never_sends_the_body_it_was_asked_for_gets_408(rig: Rig, setup: Setup) -> None:
    text = f"[proxy.timeouts]\nidle = {IDLE_S}\n" + pool_text(setup.origin.addresses)
    with Connection(rig.balancer(text, PROXY, workers=1).address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=[EXPECT, ("Content-Length", "5")]))
        assert connection.head().startswith(b"HTTP/1.1 100 ")
        assert connection.response("POST").status == 408
        assert connection.ended()


def test_other_expectations_are_refused(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=[("Expect", "wonders"), ("Content-Length", "5")]))
        assert connection.response("POST").status == 417


def test_another_server_is_tried_with_the_body_still_to_come(rig: Rig) -> None:
    with refusing_address() as refused, Origin(1, behave_oddly) as origin:
        balancer = rig.balancer(pool_text([refused, *origin.addresses], "first"), PROXY, workers=1)
        with Connection(balancer.address) as connection:
            connection.send(request_bytes("/upload", "POST", fields=[EXPECT, ("Content-Length", "5")]))
            assert connection.head().startswith(b"HTTP/1.1 100 ")
            connection.send(bytes(pattern(0, 5)))
            assert connection.response("POST").json()["received"] == 5
        balancer.wait_until_idle()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_curl_waits_for_100_and_uploads(setup: Setup, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(pattern(0, 1_000_000)))
    host, port = setup.balancer.address
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--verbose", "--max-time", "20", "--expect100-timeout", "15", "--header",
         "Expect: 100-continue", "--upload-file", str(body), f"http://{host}:{port}/upload"],
        capture_output=True, check=True, timeout=30,
    )
    assert b'"received": 1000000, "fits": true' in done.stdout and b"< HTTP/1.1 100 Continue" in done.stderr
