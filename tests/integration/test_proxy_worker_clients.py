"""ProxyWorker's side toward clients: many, slow, pipelining, half-closing and leaving ones."""
from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import PROXY, Balancer, pool_text
from tests.support.client import Connection, fetch, request_bytes, timed
from tests.support.origin import Origin
from tests.support.pattern import pattern
from tests.support.processes import private_bytes
from tests.support.rig import Rig
from tests.support.standstill import undisturbed
from tests.support.waiting import PATIENCE_S, wait_until

HEAD_S = 1.5
IDLE_S = 1.0
# Longer than any waiting here. The idle time is 60 s, too.
PATIENT = "[proxy.timeouts]\nhead = 60\nbody = 60\n"
MOST_IDLE_CLIENTS = 5000
IDLE_CLIENT_BYTES = 2048


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Rig(tmp_path_factory.mktemp("clients")) as rig:
        origin = rig.origin(2)
        # Idle clients are to stay for as long as it takes to have asked for all the others.
        yield Setup(rig.balancer(PATIENT + pool_text(origin.addresses), PROXY, workers=2, extra=["--keep-alive", "600"]), origin)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, setup: Setup) -> Iterator[Setup]:
    """With little time for heads and bodies, before the same servers."""
    with Rig(tmp_path_factory.mktemp("impatient")) as rig:
        text = f"[proxy.timeouts]\nhead = {HEAD_S}\nidle = {IDLE_S}\n" + pool_text(setup.origin.addresses)
        yield Setup(rig.balancer(text, PROXY, workers=1), setup.origin)


@pytest.fixture(autouse=True)
def nothing_is_left_in_flight(setup: Setup) -> Iterator[None]:
    yield
    setup.origin.release()
    setup.balancer.wait_until_idle()


def connections(address: tuple[str, int], count: int, first: bytes) -> contextlib.ExitStack:
    """So many open connections that have each sent `first`; leaving the stack closes them."""
    stack = contextlib.ExitStack()
    for _ in range(count):
        stack.enter_context(Connection(address)).send(first)
    return stack


def test_thousands_of_idle_clients_cost_little_and_stay(setup: Setup) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(MOST_IDLE_CLIENTS, hard - 500)
    address = setup.balancer.address
    for _ in range(50):  # what the first requests need anyway
        fetch(address)
    before = sum(private_bytes(pid) for pid in setup.balancer.workers())
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        idle = [stack.enter_context(Connection(address)) for _ in range(count)]
        for connection in idle:
            assert connection.request("/").status == 200
        grown = sum(private_bytes(pid) for pid in setup.balancer.workers()) - before
        assert grown <= count * IDLE_CLIENT_BYTES, f"{grown / count:.0f} bytes a client"
        assert fetch(address).status == 200
        for connection in idle[:: count // 100]:
            assert connection.request("/").status == 200


def test_a_thousand_slow_heads_hold_nobody_up(setup: Setup) -> None:
    address = setup.balancer.address
    with connections(address, 1000, b"GET / HTTP/1.1\r\nHost: slow.example\r\nX-Sl"):
        for _ in range(5):
            assert fetch(address).status == 200  # held up by the heads, it would have to wait for 60 s


def test_a_head_that_does_not_come_is_answered_with_408(impatient: Setup) -> None:
    with Connection(impatient.balancer.address) as connection, timed() as took:
        connection.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n")
        assert connection.response().status == 408
        assert connection.ended()
    assert took[0] >= HEAD_S * 0.9


def test_a_head_that_drips_is_answered_with_408_all_the_same(impatient: Setup) -> None:
    """The deadline is for the whole head: one byte now and then does not put it off."""
    with Connection(impatient.balancer.address) as connection:
        connection.sock.settimeout(0.05)
        data = b""
        deadline = time.monotonic() + PATIENCE_S
        connection.send(b"GET / HTTP/1.1\r\nX: ")
        while not data and time.monotonic() < deadline:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send(b"x")
            with contextlib.suppress(TimeoutError):
                data = connection.receive()
        assert data.startswith(b"HTTP/1.1 408 ")


def test_pipelined_requests_are_answered_in_order(setup: Setup) -> None:
    sizes = [1, 70_000, 3, 0, 200_000, *range(10, 25)]
    with Connection(setup.balancer.address) as connection:
        connection.send(b"".join(request_bytes(f"/bytes?n={size}") for size in sizes))
        assert [len(connection.response().body) for _ in sizes] == sizes


def test_what_is_pipelined_behind_a_slow_request_waits_for_it(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/sleep?seconds=0.3&n=7") + request_bytes("/bytes?n=9"))
        assert [len(connection.response().body) for _ in range(2)] == [7, 9]


def test_a_body_and_the_next_head_in_one_packet_come_apart(setup: Setup) -> None:
    chunked = request_bytes("/upload", "POST", fields=[("Transfer-Encoding", "chunked")]) + b"5\r\n\0\1\2\3\4\r\n0\r\n\r\n"
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", body=bytes(range(7))) + chunked + request_bytes("/bytes?n=3"))
        assert connection.response("POST").json()["received"] == 7
        assert connection.response("POST").json()["received"] == 5
        assert len(connection.response().body) == 3


def test_a_client_that_ends_its_side_still_gets_the_answer(setup: Setup) -> None:
    for target, size in (("/bytes?n=100000", 100_000), ("/sleep?seconds=0.05&n=5", 5)):
        with Connection(setup.balancer.address) as connection:
            connection.send(request_bytes(target))
            connection.sock.shutdown(socket.SHUT_WR)
            assert len(connection.response().body) == size
            assert connection.ended()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("target", ["/hold", "/stall-body?n=1000&sent=10"])
def test_a_client_that_leaves_is_noticed_while_the_server_works(setup: Setup, target: str, how: str) -> None:
    connection = Connection(setup.balancer.address)
    gone = setup.origin.peers_gone
    connection.send(request_bytes(target))
    setup.origin.wait_for_in_flight(1)
    if "stall" in target:
        assert b"200" in connection.head()
    if how == "reset":
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    wait_until(lambda: setup.origin.peers_gone > gone, "the server's connection was closed")
    setup.balancer.wait_until_idle()


def test_a_slow_body_is_answered_with_408(impatient: Setup) -> None:
    with Connection(impatient.balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=[("Content-Length", "10")]) + b"abc")
        assert connection.response("POST").status == 408
        assert connection.ended()


def test_expect_is_relayed_and_the_servers_continue_too(setup: Setup) -> None:
    fields = [("Expect", "100-continue"), ("Content-Length", "5")]
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=fields))
        assert connection.head().startswith(b"HTTP/1.1 100 ")
        connection.send(bytes(pattern(0, 5)))
        assert connection.response("POST").json() == {"received": 5, "fits": True, "trailers": {}}
        assert setup.origin.arrivals[-1].values("Expect") == ["100-continue"]
        assert connection.request("/").status == 200, "the connection goes on"


def test_an_early_final_answer_needs_no_body(setup: Setup) -> None:
    """The client is told to go on when the server has said nothing for a second."""
    fields = [("Expect", "100-continue"), ("Content-Length", "1000000")]

    def asks() -> None:
        with Connection(setup.balancer.address) as connection:
            connection.send(request_bytes("/status?code=200", "POST", fields=fields))
            response = connection.response("POST")
            assert response.status == 200 and response.interim == []
            assert (response.value("Connection") or "").lower() == "close", "nobody knows whether the body will come"
            assert connection.ended()

    undisturbed(asks, 0.5)


def test_a_server_that_never_says_continue_does_not_stop_the_client(setup: Setup) -> None:
    """`/hold` answers, when released, without having read a body or said 100."""
    fields = [("Expect", "100-continue"), ("Content-Length", "3")]
    with Connection(setup.balancer.address) as connection, setup.origin.released_at_end():
        connection.send(request_bytes("/hold", "POST", fields=fields))
        assert connection.head().startswith(b"HTTP/1.1 100 ")
        connection.send(b"abc")


def test_http_1_0_gets_no_interim_response_and_no_chunks(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/hints?hints=2&n=20&framing=chunked", version="1.0"))
        data = b"".join(iter(connection.receive, b""))
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and b"chunked" not in head.lower()
    assert len(body) == 20


def test_http_1_0_keeps_its_connection_when_it_asks_for_it(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        for _ in range(3):
            connection.send(request_bytes("/bytes?n=4", version="1.0", fields=[("Connection", "keep-alive")]))
            response = connection.response()
            assert (response.value("Connection") or "").lower() == "keep-alive" and len(response.body) == 4
