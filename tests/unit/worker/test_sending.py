"""A response to a client that reads slowly: what is taken from its server meanwhile, and what is not."""
from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prefork_lb.clock import monotonic
from prefork_lb.errors import ClientGone, TruncatedBody
from prefork_lb.green.hub import Hub
from prefork_lb.green.pipe import Pipe
from prefork_lb.green.streams import GreenStream
from prefork_lb.green.turns import TURN_S
from prefork_lb.net.stream import StreamClosed
from prefork_lb.proxy.inbound import BodyReader
from prefork_lb.proxy.reply import Reply
from prefork_lb.wire.framing import response_framing
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_response
from prefork_lb.worker import sending
from prefork_lb.worker.sending import send_chunked, send_plain
from prefork_lb.worker.service import ClientTimeouts
from tests.unit.green.running import DEADLINE_S, run

BODY = bytes(range(256)) * 4000  # more than the small buffers here hold
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


def length(number: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % number


def in_chunks(body: bytes, size: int = 1000) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[at:at + size] for at in range(0, len(body), size)))


class Exchange:
    """A server whose data is given by a thread, and a client that reads nothing until it is told to."""

    def __init__(self, head: bytes, ahead: int, idle_s: float = DEADLINE_S) -> None:
        self.hub = Hub()
        self.server_end, server = self._pair()
        self.client_end, mine = self._pair()
        self.stream, self.body_sent = GreenStream(self.hub, mine), 0
        self.service = SimpleNamespace(times=ClientTimeouts(1, 1, idle_s, ahead=ahead), pipe=Pipe())
        self.released, self.failed = threading.Event(), threading.Event()
        self._lease = SimpleNamespace(
            is_open=True, stream=GreenStream(self.hub, server), succeed=self._release, fail=lambda why: self.failed.set(),
            abandon=lambda: None)
        self._head = parse_response(head, HeadLimits())
        self.received = b""
        self._threads: list[threading.Thread] = []

    def _release(self, reusable: bool) -> None:
        self._lease.stream = None
        self.released.set()

    @staticmethod
    def _pair() -> tuple[socket.socket, socket.socket]:
        theirs, mine = socket.socketpair()
        for end in (theirs, mine):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        mine.setblocking(False)
        theirs.settimeout(DEADLINE_S)
        return theirs, mine

    def send(self, data: bytes) -> bool:
        try:
            return self.stream.send(data, DEADLINE_S)
        except StreamClosed as exc:
            raise ClientGone("left") from exc

    def send_now(self, data: bytes) -> int:
        try:
            return self.stream.send_now(data)
        except StreamClosed as exc:
            raise ClientGone("left") from exc

    def server_sends(self, data: bytes) -> None:
        self._start(self._serve, data)

    def _serve(self, data: bytes) -> None:
        try:
            self.server_end.sendall(data)
            self.server_end.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the test is over

    def client_reads(self, after: threading.Event) -> None:
        self._start(self._read, after)

    def _read(self, after: threading.Event) -> None:
        if after.wait(DEADLINE_S):
            self.received = b"".join(iter(lambda: self.client_end.recv(65536), b""))

    def _start(self, target: Any, argument: object) -> None:
        self._threads.append(threading.Thread(target=target, args=(argument,), daemon=True))
        self._threads[-1].start()

    def pass_on(self, send: Callable[[Any, Reply, bytes], None] | None = None) -> None:
        """Send the response, by `send` or as its framing says."""
        framing = response_framing(self._head, b"GET")
        reader = BodyReader(cast(Any, self._lease.stream), framing, b"", HeadLimits(), DEADLINE_S, cast(Any, self))
        reply = Reply(self._head, framing, reader, b"", cast(Any, self._lease), True, b"lb")
        send = send or (send_chunked if b"transfer-encoding" in self._head.index else partial(send_plain, closes=False))
        try:
            run(self.hub, lambda: send(cast(Any, self), reply, b""))
        finally:
            self.stream.shut_down()
            for thread in self._threads[1:]:
                thread.join(DEADLINE_S)

    # What is asked of a client that is watched.
    waiting: object = None

    def is_gone(self) -> bool:
        return False

    def close(self) -> None:
        for end in (self.server_end, self.client_end):
            end.close()
        self.hub.close()


@pytest.fixture
def exchanges() -> Iterator[list[Exchange]]:
    made: list[Exchange] = []
    yield made
    for exchange in made:
        exchange.close()


@pytest.mark.parametrize(
    ("head", "sent", "expected"),
    [
        (length(len(BODY)), BODY, BODY),
        (CLOSE, BODY, BODY),
        (CHUNKED, in_chunks(BODY) + b"0\r\n\r\n", BODY),
        (CHUNKED, in_chunks(BODY, 77) + b"0\r\nX-Sum: 1\r\n\r\n", BODY),
    ],
    ids=["length", "close", "chunked", "chunked, small"],
)
def test_the_server_is_given_back_before_a_slow_client_has_read(
        exchanges: list[Exchange], head: bytes, sent: bytes, expected: bytes) -> None:
    exchange = Exchange(head, ahead=4 * len(BODY))
    exchanges.append(exchange)
    exchange.server_sends(sent)
    exchange.client_reads(exchange.released)  # never, if it waits for the client
    exchange.pass_on()
    assert exchange.body_sent == len(expected)
    if head is CHUNKED:
        assert b"0\r\n" in exchange.received[-20:]
        exchange.received = b"".join(unchunked(exchange.received))
    assert exchange.received == expected


def unchunked(data: bytes) -> Iterator[bytes]:
    while data:
        line, _, data = data.partition(b"\r\n")
        yield data[:int(line, 16)]
        data = data[int(line, 16) + 2:] if int(line, 16) else b""


class Hesitant(Exchange):
    """A client that takes every piece of the body at once but the last one, of which it takes a byte."""

    left = len(BODY)

    def send_now(self, data: bytes) -> int:
        self.left -= len(data)
        taken = data if self.left else data[:1]
        self.stream.send(taken, DEADLINE_S)
        return len(taken)


def test_a_client_that_does_not_take_the_last_piece_at_once_gets_all_of_it(exchanges: list[Exchange]) -> None:
    """The server has been given back by then: there is nothing to take from it meanwhile."""
    exchange = Hesitant(length(len(BODY)), ahead=4 * len(BODY))
    exchanges.append(exchange)
    reads = threading.Event()
    reads.set()
    exchange.server_sends(BODY)
    exchange.client_reads(reads)
    exchange.pass_on()
    assert exchange.received == BODY and exchange.released.is_set()


def test_a_response_beyond_the_limit_holds_its_server(exchanges: list[Exchange]) -> None:
    exchange = Exchange(length(len(BODY)), ahead=50_000)
    exchanges.append(exchange)
    reads = threading.Event()
    exchange.server_sends(BODY)
    exchange.client_reads(reads)
    held: list[bool] = []

    def look() -> None:
        held.append(exchange.released.is_set())
        reads.set()

    exchange.hub.call_at(exchange.hub.now + 0.2, look)
    exchange.pass_on()
    assert held == [False] and exchange.released.is_set()
    assert exchange.received == BODY


@pytest.mark.parametrize("head", [length(len(BODY) + 1), CHUNKED], ids=["length", "chunked"])
def test_what_came_before_a_break_arrives(exchanges: list[Exchange], head: bytes) -> None:
    exchange = Exchange(head, ahead=4 * len(BODY))
    exchanges.append(exchange)
    exchange.server_sends(in_chunks(BODY) if head is CHUNKED else BODY)
    exchange.client_reads(exchange.failed)
    with pytest.raises(TruncatedBody):
        exchange.pass_on()
    assert (b"".join(unchunked(exchange.received)) if head is CHUNKED else exchange.received) == BODY
    assert not exchange.released.is_set()


def test_a_client_that_never_reads_is_given_up(exchanges: list[Exchange]) -> None:
    exchange = Exchange(length(len(BODY)), ahead=50_000, idle_s=0.1)
    exchanges.append(exchange)
    exchange.server_sends(BODY)
    with pytest.raises(ClientGone, match="took no byte"):
        exchange.pass_on()


def test_a_client_that_leaves_is_met_at_once(exchanges: list[Exchange]) -> None:
    exchange = Exchange(length(len(BODY)), ahead=50_000)
    exchanges.append(exchange)
    exchange.server_sends(BODY)
    exchange.hub.call_at(exchange.hub.now + 0.05, exchange.client_end.close)
    with pytest.raises(ClientGone):
        exchange.pass_on()


def test_what_is_received_ahead_of_a_slow_client_lets_others_have_their_turn(exchanges: list[Exchange]) -> None:
    """Each piece takes longer than a turn, and the server's data is all there: the worker never has to wait."""
    exchange = Exchange(CLOSE, ahead=1 << 20)
    exchanges.append(exchange)
    exchange.client_end.close()
    hub = exchange.hub
    pieces = iter(range(20))
    turns: list[int] = []

    class Source:
        server, is_received = exchange._lease.stream, False

        def take(self, limit: int) -> bytes:
            until = hub.now + 4 * TURN_S
            while monotonic() < until:
                pass
            self.is_received = next(pieces) == 19
            return b"x"

    exchange.server_end.sendall(b"never taken")
    hub.every(TURN_S, lambda: turns.append(1))
    run(hub, lambda: (hub.sleep(0.02), turns.clear(), sending._take(cast(Any, exchange), cast(Any, Source()), b"y", bytes)))
    assert len(turns) >= 10


def test_room_that_a_client_makes_while_others_have_their_turn_is_used(exchanges: list[Exchange]) -> None:
    """Its event came when nobody waited for it, and there is no second one: the response stood still until the idle timeout."""
    exchange = Exchange(CLOSE, ahead=100, idle_s=10 * DEADLINE_S)
    exchanges.append(exchange)
    client_end, hub = exchange.client_end, exchange.hub
    client_end.setblocking(False)
    taken = b""

    def read_all() -> bytes:
        found = b""
        with contextlib.suppress(BlockingIOError):
            while data := client_end.recv(1 << 16):
                found += data
        return found

    class Source:
        server, is_received = exchange._lease.stream, False
        pieces = iter((b"a", b"a", b"a", b"a", b"b" * 200))

        def take(self, limit: int) -> bytes:
            nonlocal taken
            taken += read_all()  # from here on there is room; the worker hears of it in the others' turn
            until = monotonic() + 4 * TURN_S
            while monotonic() < until:
                pass
            return next(self.pieces)

    exchange.server_end.sendall(b"never taken")

    def use() -> bytes:
        while exchange.stream.send_now(b"z" * 4096):
            pass
        hub.sleep(0.02)
        return sending._take(cast(Any, exchange), cast(Any, Source()), b"y", bytes)

    assert run(hub, use) == b""
    assert (taken + read_all()).lstrip(b"z") == b"yaaaa" + b"b" * 200
