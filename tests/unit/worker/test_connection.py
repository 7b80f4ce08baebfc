"""One client's connection over a socket pair, with a scripted engine behind it."""
from __future__ import annotations

import fcntl
import gc
import socket
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
from gunicorn.config import Config

from prefork_lb.errors import ConnectFailed, Forbidden, NotFound, PoolFull, ProxyError, TooManyRequests
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.wire.framing import request_framing, response_framing
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_response
from prefork_lb.worker import exchange
from prefork_lb.worker.connection import Connection
from prefork_lb.worker.service import ClientTimeouts, Service, client_info
from tests.support.waiting import wait_until

SHORT_S = 0.4
LONG_S = 20.0  # beyond the test's own deadlines
Answer = Callable[[Request], Any]


def whole(body: bytes, *fields: bytes) -> Any:
    """A reply that is here whole, as the engine gives it."""
    lines = b"".join(field + b"\r\n" for field in fields)
    head = parse_response(b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: %d\r\n%b\r\n" % (len(body), lines), HeadLimits())
    lease = SimpleNamespace(is_open=True, stream=None, server=None, succeed=lambda reusable: None, abandon=lambda: None,
                            fail=lambda: None)
    return Reply(head, response_framing(head, b"GET"), None, body, cast(Any, lease), True, b"lb")


class Client:
    """The other end of a connection that a hub serves in a thread."""

    def __init__(self, answer: Answer, limits: HeadLimits | None = None, has_engine: bool = True,
                 head_s: float = LONG_S, keepalive_s: float = LONG_S) -> None:
        self.sock, mine = socket.socketpair()
        self.sock.settimeout(10)
        mine.setblocking(False)
        self.requests: list[Request] = []
        self.logged: list[int] = []
        self._has_engine = has_engine
        self._times = ClientTimeouts(head_s, keepalive_s, LONG_S)
        self._answer = answer
        self._limits = limits or HeadLimits()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(mine,), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _application(self, environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        self.sock.close()
        return [b"to a client that has left"]

    def _exchange(self, request: Request) -> Any:
        self.requests.append(request)
        if request_framing(request.head).length:
            while request.body.read(65536):
                pass
        return self._answer(request)

    def _run(self, mine: socket.socket) -> None:
        self.hub = hub = Hub()
        engine = cast(Engine, SimpleNamespace(exchange=self._exchange, tells_addresses=False))
        service = Service(hub, engine if self._has_engine else None, self._application, lambda address: False, self._limits,
                          self._times, lambda request: self.logged.append(request.status), Config(), None)
        self.service = service
        connection = Connection(service, GreenStream(hub, mine), client_info("192.0.2.1", b"http", 80, False), None, None, False)
        hub.soon(connection.serve)
        self._ready.set()
        hub.run()
        hub.close()

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def hear(self, count: int = 1) -> bytes:
        """So many whole responses (their bodies end in an exclamation mark), or all until the end."""
        data = b""
        while data.count(b"!") < count:
            piece = self.sock.recv(65536)
            if not piece:
                break
            data += piece
        return data

    def pending(self) -> int:
        """Bytes that were sent and that the worker has not received yet."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)

    def rest(self) -> bytes:
        return b"".join(iter(lambda: self.sock.recv(65536), b""))

    def close(self) -> None:
        self.sock.close()
        self.hub.wake(self.hub.stop)
        self._thread.join(10)


def target_of(request: Request) -> Any:
    return whole(request.target + b"!")


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client(target_of)
    yield made
    made.close()


def get(target: str, *fields: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/1.1", "Host: a.test", *fields, "")).encode()


@pytest.mark.parametrize(("fields", "told"), [(("Connection: close",), "send_last"), ((), "send")])
def test_the_last_bytes_are_sent_with_the_end_where_the_client_asked_for_it(
        fields: tuple[str, ...], told: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def note(name: str) -> None:
        do = getattr(GreenStream, name)
        monkeypatch.setattr(GreenStream, name, lambda *arguments: (used.append(name), do(*arguments))[1])

    note("send")
    note("send_last")
    client.say(get("/a", *fields))
    assert client.hear().endswith(b"/a!")
    assert used[0] == told  # a fallback in Python sends by `send` in its `send_last`


def test_requests_on_one_connection_one_after_the_other(client: Client) -> None:
    for number in range(5):
        client.say(get(f"/{number}"))
        assert client.hear().endswith(b"/%d!" % number)
    assert len(client.service.connections) == 1


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    client.say(b"".join(get(f"/{number}") for number in range(20)))
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in client.hear(20).split(b"!")[:-1]]
    assert bodies == [b"/%d" % number for number in range(20)]


def test_a_head_may_come_a_byte_at_a_time(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for byte in get("/slow"):
        client.say(bytes([byte]))
    assert client.hear().endswith(b"/slow!")


def test_one_empty_line_before_a_request_is_ignored_and_two_are_not(client: Client) -> None:
    client.say(get("/a"))
    client.hear()
    client.say(b"\r\n" + get("/b"))
    assert client.hear().endswith(b"/b!")
    client.say(b"\r\n\r\n" + get("/c"))
    assert client.hear().startswith(b"HTTP/1.1 400 ")


def test_an_empty_line_that_comes_a_byte_at_a_time_is_ignored(client: Client) -> None:
    for byte in b"\r\n" + get("/slow"):
        client.say(bytes([byte]))
        wait_until(lambda: not client.pending(), "the byte has been received")
    assert client.hear().endswith(b"/slow!")


def test_a_malformed_head_behind_a_head_request_is_answered_with_a_body_of_its_own() -> None:
    """The refusal is not the answer to the request before it."""
    client = Client(lambda request: whole(b""))
    client.say(b"HEAD /before HTTP/1.1\r\nHost: a.test\r\n\r\n" + b"GET / HTTP/1.1\n")
    refusal = client.rest().partition(b"HTTP/1.1 400 ")[2]
    head, _, body = refusal.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n" and body
    client.close()


@pytest.mark.parametrize(("data", "status"), [
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GARBAGE\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"GET /" + b"x" * 500 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET /" + b"x" * 500, 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 500 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 400, 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
])
def test_what_cannot_be_a_request_is_refused_and_the_connection_ends(data: bytes, status: int) -> None:
    client = Client(target_of, HeadLimits(head_bytes=2000, line_bytes=300, fields=50))
    client.say(data)
    answer = client.rest()
    assert answer.startswith(b"HTTP/1.1 %d " % status) and b"Connection: close\r\n" in answer
    assert client.requests == [] or status == 400
    client.close()


def test_a_head_that_does_not_end_gets_408_and_an_idle_connection_ends_silently() -> None:
    idle = Client(target_of, keepalive_s=SHORT_S)
    idle.say(get("/a"))
    idle.hear()
    assert idle.rest() == b"", "idle for longer than the keep-alive time"
    idle.close()
    late = Client(target_of, head_s=SHORT_S)
    late.say(b"GET / HT")
    assert late.rest().startswith(b"HTTP/1.1 408 ")
    late.close()


@pytest.mark.parametrize(("request_bytes", "goes_on"), [
    (get("/"), True),
    (get("/", "Connection: close"), False),
    (get("/", "Connection: keep-alive"), True),
    (b"GET / HTTP/1.0\r\n\r\n", False),
    (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
])
def test_whether_the_connection_goes_on(client: Client, request_bytes: bytes, goes_on: bool) -> None:
    client.say(request_bytes)
    answer = client.hear()
    assert (b"Connection: close\r\n" in answer) is not goes_on
    if goes_on:
        client.say(get("/again"))
        assert client.hear().endswith(b"/again!")
    else:
        assert client.rest() == b""


def test_a_worker_that_ends_says_so_with_its_next_response(client: Client) -> None:
    client.say(get("/a"))
    client.hear()
    client.hub.wake(client.service.close_soon)
    wait_until(lambda: client.service.closing, "the worker ends")
    client.say(get("/b"))
    answer = client.rest()
    assert answer.endswith(b"/b!") and b"Connection: close\r\n" in answer


@pytest.mark.parametrize("has_engine", [True, False], ids=["refused", "another application"])
def test_a_client_that_left_before_its_answer_has_a_line_in_the_access_log(has_engine: bool) -> None:
    def leave(request: Request) -> Any:
        client.sock.close()
        raise PoolFull("full")

    client = Client(leave, has_engine=has_engine)
    client.say(get("/"))
    wait_until(lambda: client.logged == [499], lambda: f"a line: {client.logged}")
    client.close()


def test_a_download_that_breaks_off_leaves_no_frame_to_the_garbage_collector() -> None:
    """The frames hold the last piece of the body: half a megabyte for each client that left."""
    def answer(request: Request) -> Any:
        client.sock.close()
        return whole(b"x" * 100_000)

    client = Client(answer)
    gc.collect()
    gc.disable()
    try:
        client.say(get("/"))
        wait_until(lambda: not client.service.connections, "the connection has ended")
        frames = [found for found in gc.get_objects()
                  if isinstance(found, FrameType) and found.f_code.co_filename == exchange.__file__]
        assert frames == []
    finally:
        gc.enable()
        client.close()


def test_failures_of_servers_keep_the_connection() -> None:
    def fail(request: Request) -> Any:
        raise ConnectFailed("refused") if request.target == b"/down" else PoolFull("full")

    client = Client(fail)
    for target, status in (("/down", 502), ("/full", 503), ("/down", 502)):
        client.say(get(target, "Accept: application/json"))
        data = client.sock.recv(65536)
        assert data.startswith(b"HTTP/1.1 %d " % status) and b"Connection: close" not in data and b"refused" not in data
    client.close()


@pytest.mark.parametrize("refusal", [Forbidden("not here"), NotFound("no file"), TooManyRequests("too early")])
def test_what_a_route_refuses_keeps_the_connection(refusal: ProxyError) -> None:
    def refuse(request: Request) -> Any:
        raise refusal

    client = Client(refuse)
    for _ in range(2):
        client.say(get("/"))
        data = client.sock.recv(65536)
        assert data.startswith(b"HTTP/1.1 %d " % refusal.status) and b"Connection: close" not in data
    client.close()


def test_what_nobody_expected_is_a_500_and_the_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: Request) -> Any:
        raise LookupError("ours")

    client = Client(fail)
    client.say(get("/"))
    assert client.sock.recv(65536).startswith(b"HTTP/1.1 500 ")
    assert "LookupError: ours" in caplog.text
    client.close()


def test_remembered_heads_are_not_mixed_up(client: Client) -> None:
    """The same fields with other targets, and the same target with other fields."""
    for target in ("/a", "/b", "/a"):
        client.say(get(target, "X-Same: 1"))
        assert client.hear().endswith(target.encode() + b"!")
    for value in ("1", "2", "1"):
        client.say(get("/a", f"X-Other: {value}"))
        client.hear()
    assert [request.head.index[b"x-other"] for request in client.requests[3:]] == [[b"1"], [b"2"], [b"1"]]


def test_a_tunnel_goes_by_the_idle_time_of_its_route() -> None:
    """That of the proxy is far beyond what the client waits for here."""
    server_end, server = socket.socketpair()
    server.setblocking(False)

    def switch(request: Request) -> Any:
        timeouts = SimpleNamespace(idle=0.05)
        request.plan = cast(Any, SimpleNamespace(settings=SimpleNamespace(timeouts=timeouts), bandwidth=None))
        lease = SimpleNamespace(is_open=True, stream=GreenStream(client.hub, server), server=None, succeed=lambda reusable: None,
                                abandon=lambda: None, fail=lambda why: None)
        head = parse_response(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\n\r\n", HeadLimits())
        return Reply(head, response_framing(head, b"GET"), None, b"", cast(Any, lease), True, b"lb")

    client = Client(switch)
    with server_end:
        client.say(get("/a", "Connection: Upgrade", "Upgrade: raw"))
        assert client.rest().startswith(b"HTTP/1.1 101 ")
        client.close()
