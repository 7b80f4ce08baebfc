"""What single clients of ProxyWorker do to their connections: pipelines, half-closes, leaving, reading slowly."""
from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Connection, fetch, request_bytes, timed
from tests.support.kept_load import has_input
from tests.support.origin import Origin
from tests.support.pattern import pattern
from tests.support.ports import refusing_address
from tests.support.rig import Rig
from tests.support.standstill import undisturbed
from tests.support.waiting import wait_until

IDLE_S = 1.0
KEPT_S = 2
# Longer than any waiting here. The idle time is 60 s, too.
PATIENT = "[proxy.timeouts]\nhead = 60\nbody = 60\n"
RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """Host down.example has a pool whose only server refuses connections."""
    with Rig(tmp_path_factory.mktemp("clients")) as rig, refusing_address() as refused:
        origin = rig.origin(2)
        text = PATIENT + pool_text(origin.addresses) + pool_text([refused], name="down")
        text += '[[routes]]\nhosts = ["down.example"]\npool = "down"\n[[routes]]\npool = "web"\n'
        yield Setup(rig.balancer(text, PROXY, workers=1), origin)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, setup: Setup) -> Iterator[Setup]:
    """With a short idle time and a short keep-alive time, before the same servers."""
    with Rig(tmp_path_factory.mktemp("impatient")) as rig:
        text = f"[proxy.timeouts]\nidle = {IDLE_S}\n" + pool_text(setup.origin.addresses)
        yield Setup(rig.balancer(text, PROXY, workers=1, extra=["--keep-alive", str(KEPT_S)]), setup.origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.balancer.wait_until_idle()
    setup.origin.wait_for_in_flight(0)


def test_twenty_requests_of_all_kinds_in_one_send_are_answered_in_order(setup: Setup) -> None:
    """Whose responses have no body although they could have one, above all: what follows would be taken for it."""
    upload = request_bytes("/upload", "POST", body=bytes(pattern(0, 3000)))
    kinds = [
        ("GET", request_bytes("/sleep?seconds=0.2&n=5"), 200, 5),
        ("HEAD", request_bytes("/bytes?n=700", "HEAD"), 200, 0),
        ("GET", request_bytes("/status?code=204"), 204, 0),
        ("POST", upload, 200, None),
        ("GET", request_bytes("/status?code=304"), 304, 0),
        ("GET", request_bytes("/bytes?n=90000&framing=chunked"), 200, 90_000),
        ("HEAD", request_bytes("/bytes?n=700&framing=chunked", "HEAD"), 200, 0),
        ("DELETE", request_bytes("/bytes?n=0", "DELETE"), 200, 0),
        ("GET", request_bytes("/hints?hints=2&n=11"), 200, 11),
        ("GET", request_bytes("/", fields=[("Host", "down.example")]), 502, None),
    ] * 2
    with Connection(setup.balancer.address) as connection:
        connection.send(b"".join(data for _, data, _, _ in kinds))
        for method, data, status, length in kinds:
            response = connection.response(method)
            assert response.status == status, data
            if length is not None:
                assert len(response.body) == length, data
            elif method == "POST":
                assert response.json()["received"] == 3000


def test_a_pipeline_a_byte_at_a_time_is_the_same_pipeline(setup: Setup) -> None:
    sent = request_bytes("/upload", "POST", body=bytes(pattern(0, 9))) + b"\r\n" + request_bytes("/bytes?n=5", close=True)
    with Connection(setup.balancer.address) as connection:
        for index in range(len(sent)):
            connection.send(sent[index:index + 1])
        assert connection.response("POST").json()["received"] == 9
        assert len(connection.response().body) == 5


def test_nothing_behind_a_refused_request_is_looked_at(setup: Setup) -> None:
    start = len(setup.origin.arrivals)
    for bad in (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,2\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with Connection(setup.balancer.address) as connection:
            connection.send(bad + request_bytes("/bytes?behind=1"))
            assert connection.response().status == 400
            assert connection.ended()
    assert setup.origin.arrivals[start:] == []


def test_a_pipeline_behind_which_the_client_ended_its_side_is_answered_whole(setup: Setup) -> None:
    upload = request_bytes("/upload", "POST", body=bytes(pattern(0, 100_000)))
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/bytes?n=3") + upload + request_bytes("/bytes?n=100000"))
        connection.sock.shutdown(socket.SHUT_WR)
        assert len(connection.response().body) == 3
        assert connection.response("POST").json()["received"] == 100_000
        assert len(connection.response().body) == 100_000
        assert connection.ended()


def test_a_client_that_ended_its_side_in_a_body_or_head_is_not_waited_for(setup: Setup) -> None:
    for begun in (request_bytes("/upload", "POST", fields=[("Content-Length", "10")]) + b"abc", b"GET / HTTP/1.1\r\nHo"):
        with Connection(setup.balancer.address) as connection:
            connection.send(begun)
            connection.sock.shutdown(socket.SHUT_WR)
            while connection.receive():
                pass


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_with_requests_pipelined_frees_its_server(setup: Setup, how: str) -> None:
    """The second one must not start, either: its answer could go nowhere."""
    gone = setup.origin.peers_gone
    connection = Connection(setup.balancer.address)
    connection.send(request_bytes("/hold") + request_bytes("/hold"))
    setup.origin.wait_for_in_flight(1)
    if how == "reset":
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()
    wait_until(lambda: setup.origin.peers_gone > gone, "the server's connection was closed")
    setup.balancer.wait_until_idle()
    setup.origin.wait_for_in_flight(0)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_a_response_it_did_not_read_frees_its_server(setup: Setup, how: str) -> None:
    connection = Connection(setup.balancer.address, receive_buffer=32 * 1024)
    connection.send(request_bytes(f"/bytes?n={200 << 20}"))
    setup.origin.wait_for_in_flight(1)
    connection.head()
    if how == "reset":
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()
    setup.origin.wait_for_in_flight(0)
    setup.balancer.wait_until_idle()


def test_a_client_that_takes_nothing_of_its_response_is_left_after_the_idle_time(impatient: Setup) -> None:
    with Connection(impatient.balancer.address, receive_buffer=32 * 1024) as connection, timed() as took:
        connection.send(request_bytes(f"/bytes?n={200 << 20}"))
        connection.head()
        impatient.origin.wait_for_in_flight(0)
        impatient.balancer.wait_until_idle()
    assert took[0] >= IDLE_S * 0.9


def test_a_client_that_takes_a_little_now_and_then_is_not_left(impatient: Setup) -> None:
    def takes_all() -> None:
        length, done = 24 << 20, 0
        begin = time.monotonic()
        with Connection(impatient.balancer.address, receive_buffer=32 * 1024) as connection:
            connection.send(request_bytes(f"/bytes?n={length}", close=True))
            connection.head()
            while piece := connection.receive(1 << 20):
                done += len(piece)
                if time.monotonic() - begin < 3 * IDLE_S:
                    time.sleep(IDLE_S / 10)
        assert done == length and time.monotonic() - begin > 2 * IDLE_S

    undisturbed(takes_all, IDLE_S / 2)


def test_an_idle_connection_ends_after_the_keepalive_time_and_not_before(impatient: Setup) -> None:
    with Connection(impatient.balancer.address) as used, Connection(impatient.balancer.address) as fresh:
        begin = time.monotonic()
        assert used.request("/").status == 200
        assert used.ended()
        assert time.monotonic() - begin >= KEPT_S * 0.9
        assert fresh.ended(), "one that never asked for anything ends as well"


def test_a_request_just_before_the_end_of_the_keepalive_time_is_answered(impatient: Setup) -> None:
    def asks_again_and_again() -> None:
        with Connection(impatient.balancer.address) as connection:
            for _ in range(4):
                assert connection.request("/").status == 200
                time.sleep(KEPT_S * 0.5)  # 4 times: no deadline is counted from the first request
            assert connection.request("/").status == 200

    undisturbed(asks_again_and_again, KEPT_S * 0.25)


def test_a_body_left_unread_by_the_server_does_not_become_the_next_request(setup: Setup) -> None:
    body = request_bytes("/bytes?n=1&smuggled=1") * 2
    start = len(setup.origin.arrivals)
    with Connection(setup.balancer.address) as connection:
        fields = [("Host", "down.example")]
        connection.send(request_bytes("/", "POST", fields=fields, body=body) + request_bytes("/bytes?n=6"))
        assert connection.response("POST").status == 502
        assert len(connection.response().body) == 6
    assert [arrival.target for arrival in setup.origin.arrivals[start:]] == ["/bytes?n=6"]


def test_a_large_body_that_nobody_took_is_answered_and_the_answer_can_be_read(setup: Setup) -> None:
    """502 while megabytes are still on their way: closing at once would reset the connection under the answer."""
    size = 8 << 20
    with Connection(setup.balancer.address) as connection:
        head = request_bytes("/", "POST", fields=[("Host", "down.example"), ("Content-Length", str(size))])
        connection.send(head + bytes(64 * 1024))
        wait_until(lambda: has_input(connection), "the answer is there before the rest is sent")
        with contextlib.suppress(ConnectionError):  # the balancer does not read on for ever
            connection.send(bytes(256 * 1024))
        assert connection.response("POST").status == 502
    assert fetch(setup.balancer.address).status == 200
