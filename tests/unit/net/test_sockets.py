"""Streams over real socket pairs and loopback connections: waiting, ends, resets, early answers."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import gevent.socket
import pytest

from prefork_lb.net.sockets import SocketStream
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from tests.support.certificates import make_pair, needs_openssl
from tests.support.tls import believing
from tests.support.waiting import wait_until
from tests.support.watched import Watching

DEADLINE_S = 10.0
SHORT_S = 0.05
Pair = tuple[socket.socket, socket.socket]


def unix_pair() -> Pair:
    return socket.socketpair()


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return mine, theirs


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    mine, theirs = request.param()
    theirs.settimeout(DEADLINE_S)
    yield mine, theirs
    mine.close()
    theirs.close()


@pytest.fixture
def peer(pair: Pair) -> socket.socket:
    return pair[1]


@pytest.fixture
def stream(pair: Pair) -> SocketStream:
    return SocketStream(pair[0])


def reset(peer: socket.socket) -> None:
    """End the connection with a reset; for a unix socket, unread data does that."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def never() -> bool:
    return False


def test_received_is_what_is_there_up_to_the_limit(stream: SocketStream, peer: socket.socket) -> None:
    peer.sendall(b"hello")
    assert stream.receive(3, DEADLINE_S) == b"hel"
    assert stream.receive(100, DEADLINE_S) == b"lo"


def test_the_end_is_an_empty_read(stream: SocketStream, peer: socket.socket) -> None:
    peer.sendall(b"x")
    peer.shutdown(socket.SHUT_WR)
    assert [stream.receive(9, DEADLINE_S) for _ in range(3)] == [b"x", b"", b""]


def test_silence_is_a_timeout_after_which_reading_goes_on(stream: SocketStream, peer: socket.socket) -> None:
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(StreamTimeout):
            stream.receive(9, SHORT_S)
    # Two waits; the kernel counts in ticks of up to 10 ms and may end one tick early.
    assert time.monotonic() - started >= 2 * SHORT_S - 0.02
    peer.sendall(b"x")
    assert stream.receive(9, DEADLINE_S) == b"x"


def test_a_wait_of_almost_nothing_is_not_for_ever(stream: SocketStream) -> None:
    with pytest.raises(StreamTimeout):
        stream.receive(1, 1e-9)


def test_a_time_of_zero_is_no_wait_for_ever(stream: SocketStream) -> None:
    with pytest.raises(StreamTimeout):
        stream.receive(1, 0)
    with pytest.raises(StreamTimeout):
        for _ in range(1000):
            stream.send(bytes(1 << 16), 0)


@needs_openssl
def test_a_time_of_zero_is_a_timeout_over_tls(tmp_path: Path) -> None:
    mine, theirs = tcp_pair()
    one = make_pair(tmp_path, "one", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(one.certificate, one.key)
    secured: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: secured.append(context.wrap_socket(theirs, server_side=True)), daemon=True)
    thread.start()
    stream = SocketStream(believing(one).wrap_socket(mine, server_hostname="localhost"))
    thread.join(DEADLINE_S)
    try:
        with pytest.raises(StreamTimeout):
            stream.receive(1, 0)
        with pytest.raises(StreamTimeout):
            for _ in range(1000):
                stream.send(bytes(1 << 16), 0)
    finally:
        stream.close()
        secured[0].close()


def test_a_reset_is_no_end(stream: SocketStream, peer: socket.socket) -> None:
    stream.send(b"unread", DEADLINE_S)
    reset(peer)
    with pytest.raises(StreamClosed, match="Connection reset by peer"):
        stream.receive(9, DEADLINE_S)


def test_receive_or_gives_what_comes_without_looking_aside(stream: SocketStream, peer: socket.socket) -> None:
    peer.sendall(b"x")
    looks: list[int] = []
    assert stream.receive_or(9, DEADLINE_S, Watching(lambda: bool(looks.append(1)))) == b"x"
    assert looks == []


def test_receive_or_ends_when_the_other_side_is_gone(stream: SocketStream) -> None:
    assert stream.receive_or(9, DEADLINE_S, Watching(lambda: True)) is None


def test_receive_or_times_out_when_nobody_is_gone(stream: SocketStream) -> None:
    looks: list[float] = []

    def look() -> bool:
        looks.append(time.monotonic())
        return False

    with pytest.raises(StreamTimeout):
        stream.receive_or(9, 0.6, Watching(look))
    assert len(looks) == 1  # after half a second, and not again in the last tenth


def test_receive_or_sees_the_end_and_data_that_come_later(stream: SocketStream, peer: socket.socket) -> None:
    def gone_after_sending() -> bool:
        peer.sendall(b"late")
        return False

    assert stream.receive_or(9, DEADLINE_S, Watching(gone_after_sending)) == b"late"
    peer.shutdown(socket.SHUT_WR)
    assert stream.receive_or(9, DEADLINE_S, Watching(never)) == b""


def reader(peer: socket.socket, received: list[bytes], stop_at: int) -> threading.Thread:
    def run() -> None:
        size = 0
        while size < stop_at:
            data = peer.recv(1 << 16)
            received.append(data)
            size += len(data)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("method", ["send", "send_unless_answered"])
def test_all_is_sent_though_the_peer_reads_slowly(stream: SocketStream, peer: socket.socket, method: str) -> None:
    data = bytes(range(256)) * (1 << 14)  # 4 MiB: more than the buffers on the way hold
    received: list[bytes] = []
    thread = reader(peer, received, len(data))
    getattr(stream, method)(data, DEADLINE_S)
    thread.join(DEADLINE_S)
    assert b"".join(received) == data


@pytest.mark.parametrize("method", ["send", "send_unless_answered"])
def test_a_peer_that_takes_nothing_is_a_timeout(stream: SocketStream, method: str) -> None:
    with pytest.raises(StreamTimeout):
        for _ in range(1000):
            getattr(stream, method)(bytes(1 << 16), SHORT_S)


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_the_timeout_is_for_standing_still_not_for_the_whole(
    stream: SocketStream, peer: socket.socket, seconds: float
) -> None:
    data = bytes(1 << 23)
    received: list[bytes] = []

    def run() -> None:
        while sum(map(len, received)) < len(data):
            received.append(peer.recv(1 << 20))
            threading.Event().wait(seconds / 10)  # slower than the sender, never still

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    stream.send(data, DEADLINE_S)
    thread.join(DEADLINE_S)
    assert sum(map(len, received)) == len(data)


def test_sending_to_a_closed_peer_says_so(stream: SocketStream, peer: socket.socket) -> None:
    stream.send(b"unread", DEADLINE_S)
    reset(peer)

    def refused() -> str:
        try:
            stream.send(b"x", DEADLINE_S)
        except StreamClosed as exc:
            return str(exc)
        return ""

    assert wait_until(refused, "the reset") in ("Broken pipe", "Connection reset by peer")


def test_an_answer_that_is_there_stops_sending_before_the_first_byte(stream: SocketStream, peer: socket.socket) -> None:
    peer.sendall(b"no")
    wait_until(lambda: not stream.is_quiet(), "the answer")
    assert stream.send_unless_answered(b"data", DEADLINE_S) == 0
    assert stream.receive(9, DEADLINE_S) == b"no"
    assert stream.send_unless_answered(b"data", DEADLINE_S) == 4


def test_an_answer_in_the_middle_stops_sending_there(stream: SocketStream, peer: socket.socket) -> None:
    data = bytes(1 << 26)

    def run() -> None:
        peer.recv(1)
        peer.sendall(b"enough")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    sent = stream.send_unless_answered(data, DEADLINE_S)
    thread.join(DEADLINE_S)
    assert 0 < sent < len(data)
    assert stream.receive(9, DEADLINE_S) == b"enough"


@pytest.mark.parametrize(
    "end", [lambda peer: peer.shutdown(socket.SHUT_WR), socket.socket.close, reset], ids=["half", "close", "reset"]
)
def test_an_end_stops_sending_like_an_answer(
    stream: SocketStream, peer: socket.socket, end: Callable[[socket.socket], None]
) -> None:
    end(peer)
    wait_until(lambda: not stream.is_quiet(), "the end")
    try:
        assert stream.send_unless_answered(bytes(1 << 26), DEADLINE_S) == 0
    except StreamClosed:
        pass  # seen by the send itself


def test_no_data_is_sent_at_once(stream: SocketStream) -> None:
    assert stream.send_unless_answered(b"", DEADLINE_S) == 0


def test_an_open_connection_is_quiet(stream: SocketStream, peer: socket.socket) -> None:
    assert stream.is_quiet()
    stream.send(b"x", DEADLINE_S)
    assert stream.is_quiet()


@pytest.mark.parametrize(
    "end",
    [lambda peer: peer.sendall(b"x"), lambda peer: peer.shutdown(socket.SHUT_WR), socket.socket.close, reset],
    ids=["data", "half", "close", "reset"],
)
def test_a_connection_with_anything_to_say_is_not_quiet(
    stream: SocketStream, peer: socket.socket, end: Callable[[socket.socket], None]
) -> None:
    end(peer)
    wait_until(lambda: not stream.is_quiet(), "what the peer did")


def test_looking_whether_it_is_quiet_takes_nothing_away(stream: SocketStream, peer: socket.socket) -> None:
    peer.sendall(b"x")
    wait_until(lambda: not stream.is_quiet(), "the byte")
    assert not stream.is_quiet()
    assert stream.receive(9, DEADLINE_S) == b"x"
    assert stream.is_quiet()


def test_closing_twice_is_closing_once(stream: SocketStream, peer: socket.socket) -> None:
    stream.close()
    stream.close()
    assert peer.recv(1) == b""


def test_the_two_directions_have_their_own_timeouts(stream: SocketStream, peer: socket.socket) -> None:
    stream.send(b"x", DEADLINE_S)
    with pytest.raises(StreamTimeout):
        stream.receive(1, SHORT_S)
    stream.send(b"y", DEADLINE_S)
    with pytest.raises(StreamTimeout):
        stream.receive(1, SHORT_S)
    assert peer.recv(9) in (b"xy", b"x")


def in_greenlet(function: Callable[[], object]) -> object:
    return gevent.spawn(function).get(timeout=DEADLINE_S)


def test_a_gevent_socket_waits_for_the_shorter_side_too() -> None:
    def run() -> list[object]:
        mine, theirs = gevent.socket.socketpair()
        stream = SocketStream(mine)
        seen: list[object] = []
        # One timeout for both directions: each operation must set its own, whatever the other one left there.
        for _ in range(2):
            stream.send(b"x", DEADLINE_S)
            with pytest.raises(StreamTimeout):
                stream.receive(1, SHORT_S)
        gevent.spawn_later(3 * SHORT_S, theirs.sendall, b"late")
        seen.append(stream.receive(9, DEADLINE_S))
        with pytest.raises(StreamTimeout):
            stream.receive_or(9, SHORT_S, Watching(never))
        seen.append(stream.is_quiet())
        theirs.shutdown(socket.SHUT_WR)
        seen.append(stream.receive_or(9, DEADLINE_S, Watching(never)))
        stream.close()
        return seen

    assert in_greenlet(run) == [b"late", True, b""]


def test_a_gevent_socket_that_takes_nothing_is_a_timeout() -> None:
    def run() -> None:
        mine, theirs = gevent.socket.socketpair()
        stream = SocketStream(mine)
        with pytest.raises(StreamTimeout):
            for _ in range(1000):
                stream.send(bytes(1 << 16), SHORT_S)
        stream.close()
        theirs.close()

    in_greenlet(run)


class Starved(socket.socket):
    """A socket that the kernel calls writable and then has no memory for, a few times (tcp(7), tcp_mem)."""

    refusals = 3

    def send(self, *arguments: object) -> int:  # type: ignore[override]
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return super().send(*arguments)  # type: ignore[arg-type]


def test_a_kernel_short_of_memory_is_no_lost_connection() -> None:
    mine, theirs = socket.socketpair()
    with theirs, Starved(fileno=mine.detach()) as starved:
        assert SocketStream(starved).send_unless_answered(b"data", DEADLINE_S) == 4
        assert theirs.recv(9) == b"data"


class Broken(socket.socket):
    """A socket whose connection breaks between the look and the send."""

    def send(self, *arguments: object) -> int:  # type: ignore[override]
        raise BrokenPipeError(32, "Broken pipe")


def test_a_connection_that_breaks_in_the_middle_says_so() -> None:
    mine, theirs = socket.socketpair()
    with theirs, Broken(fileno=mine.detach()) as broken, pytest.raises(StreamClosed, match="Broken pipe"):
        SocketStream(broken).send_unless_answered(b"data", DEADLINE_S)
