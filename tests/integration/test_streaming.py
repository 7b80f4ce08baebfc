"""Bodies stream both ways at the slower side's pace, in constant memory, and never look whole when they are not."""
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import Balancer, FrontEnd, pool_text
from tests.support.client import Connection, Truncated, fetch, request_bytes
from tests.support.memory import MemoryWatch
from tests.support.origin import Origin
from tests.support.pattern import fits_pattern, pattern
from tests.support.rig import Rig
from tests.support.waiting import wait_until

MIB = 1024 * 1024
# 1 GiB with PREFORK_LB_TEST_LARGE_BODY=1073741824; the memory a worker needs does not depend on it.
LARGE = int(os.environ.get("PREFORK_LB_TEST_LARGE_BODY", 128 * MIB))
GROWTH = 2 * MIB
# What the kernel's buffers of two loopback connections may hold at most (tcp_rmem and tcp_wmem), generously.
IN_BUFFERS = 64 * MIB
UPLOAD_BUFFER = 256 * 1024


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


@pytest.fixture(scope="module")
def setup(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """One worker, so that every transfer is that worker's."""
    with Rig(tmp_path_factory.mktemp("streaming")) as rig:
        origin = rig.origin(1)
        balancer = rig.balancer(pool_text(origin.addresses), front_end, workers=1)
        # Under gevent the worker forks to start the controller. Until the child has become that, all the worker's memory is
        # shared and none is private: a look at that moment finds 13 MiB too little.
        wait_until(lambda: "controller of gunicorn" in balancer.log(), "the controller runs")
        yield Setup(balancer, origin)


def download(balancer: Balancer, length: int, framing: str) -> int:
    """Fetch `length` bytes and compare them; the bytes of body that came, with the chunked framing taken off."""
    with Connection(balancer.address) as connection:
        connection.send(request_bytes(f"/bytes?n={length}&framing={framing}", close=True))
        head = connection.head().decode()
        assert head.startswith("HTTP/1.1 200"), head
        chunked = "transfer-encoding: chunked" in head.lower()
        done = 0
        for piece in chunks(connection) if chunked else iter(connection.receive, b""):
            assert fits_pattern(done, piece), f"the body differs after byte {done}"
            done += len(piece)
        return done


def chunks(connection: Connection) -> Iterator[bytes]:
    """The data of a chunked body, in pieces; AssertionError when it ends early."""
    buffer = b""

    def more() -> bytes:
        data = connection.receive()
        assert data, "the connection ended within the chunked body"
        return data

    while True:
        while b"\r\n" not in buffer:
            buffer += more()
        line, _, buffer = buffer.partition(b"\r\n")
        left = int(line, 16)
        if left == 0:
            return
        while left:
            if not buffer:
                buffer = more()
            piece, buffer = buffer[:left], buffer[left:]
            left -= len(piece)
            yield piece
        while len(buffer) < 2:
            buffer += more()
        assert buffer[:2] == b"\r\n"
        buffer = buffer[2:]


def upload(balancer: Balancer, length: int, framing: str) -> int:
    """Send `length` bytes; how many the server received, if they fit the pattern."""
    with Connection(balancer.address, timeout=60) as connection:
        declared = ("Content-Length", str(length)) if framing == "length" else ("Transfer-Encoding", "chunked")
        connection.send(request_bytes("/upload", "POST", fields=[declared], close=True))
        size = 64 * 1024
        for offset in range(0, length, size):
            piece = pattern(offset, min(size, length - offset))
            connection.send(bytes(piece) if framing == "length" else b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
        if framing == "chunked":
            connection.send(b"0\r\n\r\n")
        told = connection.response("POST").json()
        assert told["fits"], "the server received another body"
        return int(told["received"])


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_large_response_does_not_raise_the_workers_memory(setup: Setup, framing: str) -> None:
    balancer, _ = setup
    (worker,) = balancer.workers()
    download(balancer, 8 * MIB, framing)  # what the first transfer allocates once
    with MemoryWatch(worker) as memory:
        assert download(balancer, LARGE, framing) == LARGE
    assert memory.samples > 5
    assert memory.growth <= GROWTH, f"grew by {memory.growth / MIB:.2f} MiB"


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_large_upload_does_not_raise_the_workers_memory(setup: Setup, framing: str) -> None:
    balancer, _ = setup
    (worker,) = balancer.workers()
    upload(balancer, 8 * MIB, framing)
    with MemoryWatch(worker) as memory:
        assert upload(balancer, LARGE, framing) == LARGE
    assert memory.samples > 5
    assert memory.growth <= GROWTH, f"grew by {memory.growth / MIB:.2f} MiB"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_the_head_does_not_wait_for_the_body(setup: Setup, framing: str) -> None:
    balancer, origin = setup
    with Connection(balancer.address) as connection, origin.released_at_end():
        connection.send(request_bytes(f"/late-body?n=10&framing={framing}", close=True))
        assert connection.head().startswith(b"HTTP/1.1 200 ")
        origin.release()
        assert bytes(pattern(0, 10)) in b"".join(iter(connection.receive, b""))


def stands_still(origin: Origin, counter: str) -> int:
    """Wait until the number of bytes that the server sent or received no longer changes; that number."""
    seen: list[int] = []

    def still() -> bool:
        now = sum(getattr(link, counter) for link in list(origin.servers[0].links))
        seen.append(now)
        return now > 0 and len(seen) > 10 and seen[-10:] == [now] * 10

    wait_until(still, lambda: f"bytes {counter} stand still: {seen[-12:]}", 20, every=0.05)
    return seen[-1]


def test_a_slow_reader_slows_the_server_down(setup: Setup) -> None:
    balancer, origin = setup
    (worker,) = balancer.workers()
    length = 128 * MIB
    with Connection(balancer.address, receive_buffer=64 * 1024) as connection, MemoryWatch(worker) as memory:
        connection.send(request_bytes(f"/bytes?n={length}", close=True))
        connection.head()
        assert stands_still(origin, "sent") < IN_BUFFERS
        done = 0
        while piece := connection.receive():
            assert fits_pattern(done, piece)
            done += len(piece)
    assert done == length
    assert memory.growth <= GROWTH, f"grew by {memory.growth / MIB:.2f} MiB"


def test_a_slow_server_slows_the_upload_down(setup: Setup) -> None:
    balancer, origin = setup
    (worker,) = balancer.workers()
    length, size, sent = 128 * MIB, 64 * 1024, 0
    with origin.released_at_end(), Connection(balancer.address) as connection, MemoryWatch(worker) as memory:
        connection.send(request_bytes("/upload?held=1", "POST", fields=[("Content-Length", str(length))], close=True))
        connection.sock.settimeout(1)
        try:
            while sent < length:
                # send, not sendall: after a timeout it must be known how much went out.
                sent += connection.sock.send(pattern(sent, min(size, length - sent)))
        except TimeoutError:
            pass
        assert sent < IN_BUFFERS
        origin.wait_for_in_flight(1)
        origin.release()
        connection.sock.settimeout(20)
        while sent < length:
            sent += connection.sock.send(pattern(sent, min(size, length - sent)))
        assert connection.response("POST").json() == {"received": length, "fits": True, "trailers": {}}
    assert memory.growth <= GROWTH, f"grew by {memory.growth / MIB:.2f} MiB"


def test_each_piece_of_a_response_is_passed_on_when_it_comes(setup: Setup) -> None:
    balancer, origin = setup
    for framing in ("length", "chunked", "close"):
        with origin.released_at_end(), Connection(balancer.address) as connection:
            connection.send(request_bytes(f"/stall-body?n=1000&sent=100&framing={framing}"))
            received = connection.head()
            while bytes(pattern(0, 100)) not in received:  # the server sends no more until it is released
                received += connection.receive()


def server_has(origin: Origin, count: int) -> None:
    wait_until(lambda: sum(link.received for link in list(origin.servers[0].links) if link.busy) >= count,
               f"the server has the first {count} bytes")


def test_an_upload_is_passed_on_while_the_client_still_sends(setup: Setup) -> None:
    """Up to a buffer's worth: the first piece may wait until it is full, so that a slow client claims no server."""
    balancer, origin = setup
    step = MIB - 100
    with Connection(balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=[("Content-Length", str(3 * step))], close=True))
        for turn in range(3):
            connection.send(bytes(pattern(turn * step, step)))
            if turn < 2:
                server_has(origin, (turn + 1) * step - UPLOAD_BUFFER)
        assert connection.response("POST").json() == {"received": 3 * step, "fits": True, "trailers": {}}


def leaves(setup: Setup, target: str, body_first: bool) -> None:
    """A client asks for `target`, leaves (before the head or in the body), and the server hears of it."""
    balancer, origin = setup
    with origin.released_at_end():
        with Connection(balancer.address) as connection:
            connection.send(request_bytes(target))
            origin.wait_for_in_flight(1)
            (busy,) = wait_until(lambda: [link for link in list(origin.servers[0].links) if link.busy], "its connection")
            if body_first:
                connection.head()
                connection.receive()
        origin.wait_for_in_flight(0)
        balancer.wait_until_idle()
        wait_until(lambda: busy not in origin.servers[0].links, "the connection to the server is ended")
    # The next client is served as if nothing had been.
    assert fetch(balancer.address).status == 200


def test_a_client_that_leaves_before_the_head_frees_its_server(setup: Setup) -> None:
    leaves(setup, "/hold", body_first=False)


def test_a_client_that_leaves_in_a_running_body_frees_its_server(setup: Setup) -> None:
    leaves(setup, "/drip?n=1000&size=100&gap=0.05&framing=chunked", body_first=True)


def test_a_client_that_leaves_while_the_body_pauses_frees_its_server(setup: Setup) -> None:
    leaves(setup, "/stall-body?n=1000&sent=100", body_first=True)


def test_a_client_that_leaves_in_its_upload_frees_its_server(setup: Setup) -> None:
    balancer, origin = setup
    with Connection(balancer.address) as connection:
        connection.send(request_bytes("/upload", "POST", fields=[("Content-Length", str(10 * MIB))]) + bytes(MIB))
        origin.wait_for_in_flight(1)
    origin.wait_for_in_flight(0)
    balancer.wait_until_idle()
    assert fetch(balancer.address).status == 200


@pytest.mark.parametrize("how", ["eof", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_body_that_the_server_cut_never_looks_whole(setup: Setup, framing: str, how: str, version: str) -> None:
    """To an HTTP/1.0 client a chunked body goes without framing: only a reset tells it that the end is missing."""
    target = f"/broken?framing={framing}&how={how}&n=1000&sent=100"
    with pytest.raises(Truncated) as caught, Connection(setup.balancer.address) as connection:
        connection.request(target, version=version, close=True)
    assert caught.value.response.status in (0, 200)  # 0: a reset may overtake the head
    assert fits_pattern(0, caught.value.response.body)
    setup.balancer.wait_until_idle()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_reset_in_a_body_without_framing_is_passed_on(setup: Setup, version: str) -> None:
    with pytest.raises(Truncated), Connection(setup.balancer.address) as connection:
        connection.request("/broken?framing=close&how=reset&sent=100", version=version, close=True)
    setup.balancer.wait_until_idle()


@pytest.mark.parametrize("target", ["/cut-head?how=eof", "/cut-head?how=reset", "/no-answer?how=eof"])
def test_a_server_that_breaks_off_before_its_head_is_a_502(setup: Setup, target: str) -> None:
    response = fetch(setup.balancer.address, target, "POST", body=b"x")
    assert response.status == 502
    setup.balancer.wait_until_idle()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_body_of_any_framing_arrives_whole(setup: Setup, framing: str, version: str) -> None:
    response = fetch(setup.balancer.address, f"/bytes?n=300000&framing={framing}", version=version)
    assert response.status == 200
    assert response.body == bytes(pattern(0, 300000))


def test_a_head_request_gets_the_length_and_no_body(setup: Setup) -> None:
    response = fetch(setup.balancer.address, "/bytes?n=1234", "HEAD")
    assert (response.status, response.value("Content-Length"), response.body) == (200, "1234", b"")


@pytest.mark.parametrize("code", [204, 304])
def test_answers_without_a_body_leave_the_connection_in_step(setup: Setup, code: int) -> None:
    # Several in one write: whatever followed such a head would be taken for the next answer.
    with Connection(setup.balancer.address) as connection:
        bare = connection.request(f"/status?code={code}")
        assert (bare.status, bare.body, bare.value("ETag")) == (code, b"", '"v1"')
        assert bare.value("Transfer-Encoding") is None
        if code == 204:
            assert bare.value("Content-Length") is None  # RFC 9110 8.6
        if (bare.value("Connection") or "").lower() == "close":
            assert connection.ended()
        else:
            assert connection.request("/").status == 200


@pytest.mark.parametrize("hints", [1, 3])
def test_interim_responses_are_relayed(setup: Setup, hints: int) -> None:
    response = fetch(setup.balancer.address, f"/hints?hints={hints}&n=10")
    links = [dict(fields).get("Link") or dict(fields).get("link") for status, fields in response.interim]
    assert [status for status, _ in response.interim] == [103] * hints
    assert links == [f"</style-{number}.css>; rel=preload" for number in range(hints)]
    assert (response.status, len(response.body)) == (200, 10)


def test_an_http_1_0_client_gets_no_interim_response(setup: Setup) -> None:
    response = fetch(setup.balancer.address, "/hints?n=10", version="1.0")
    assert (response.status, response.interim, len(response.body)) == (200, [], 10)


def test_a_client_that_expects_100_continue_is_told_to_go_on(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        fields = [("Expect", "100-continue"), ("Content-Length", "5")]
        connection.send(request_bytes("/upload", "POST", fields=fields, close=True))
        assert connection.head().startswith(b"HTTP/1.1 100")
        connection.send(bytes(pattern(0, 5)))
        response = connection.response("POST")
        assert response.json() == {"received": 5, "fits": True, "trailers": {}}
        assert response.interim == []


def test_trailers_do_not_disturb_the_body(setup: Setup) -> None:
    response = fetch(setup.balancer.address, "/trailers")
    assert (response.status, response.body) == (200, b"hello")
    # RFC 9110 6.5.1: an intermediary may drop them; it must not change them or merge them into the head.
    assert response.trailers in ([], [("X-Checksum", "5d41")], [("x-checksum", "5d41")])
    assert response.value("X-Checksum") is None


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_servers_behind_unix_sockets_ipv6_and_names(rig: Rig, front_end: FrontEnd) -> None:
    """Each in a pool of its own; a name is resolved, and all of its addresses are tried."""
    named, unix = rig.origin(1, "localhost"), rig.origin(1, "unix")
    port = named.addresses[0].rpartition(":")[2]
    pools = {"name": f"localhost:{port}", "unix": unix.addresses[0]}
    if has_ipv6():
        pools["six"] = rig.origin(1, "inet6").addresses[0]
    config = "".join(pool_text([address], name=name) for name, address in pools.items())
    config += "".join(f'[[routes]]\nhosts = ["{name}.example"]\npool = "{name}"\n' for name in pools)
    balancer = rig.balancer(config, front_end, workers=2)
    for name in pools:
        for _ in range(3):
            response = fetch(balancer.address, "/bytes?n=70000", fields=[("Host", f"{name}.example")])
            assert (response.status, response.body) == (200, bytes(pattern(0, 70000))), name
    balancer.wait_until_idle()
