"""Green streams: what holds for streams over blocking sockets holds here, and what epoll's edges make of it."""
from __future__ import annotations

import select
import socket
import struct
import threading
import time

import pytest

from prefork_lb.green import compiled
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from tests.support.watched import Watching
from tests.unit.green.ends import Ends, tcp_pair, unix_pair
from tests.unit.green.running import DEADLINE_S, run

SHORT_S = 0.05


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def ends(request: pytest.FixtureRequest) -> Ends:
    mine, theirs = request.param()
    mine.setblocking(False)
    theirs.settimeout(DEADLINE_S)
    return mine, theirs


@pytest.fixture
def peer(ends: Ends) -> socket.socket:
    return ends[1]


@pytest.fixture(params=["socket", "descriptor"])
def stream(hub: Hub, ends: Ends, request: pytest.FixtureRequest) -> GreenStream:
    return GreenStream(hub, ends[0] if request.param == "socket" else ends[0].detach())


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_what_was_there_before_the_stream_is_received(hub: Hub, ends: Ends) -> None:
    ends[1].sendall(b"early")
    assert run(hub, lambda: GreenStream(hub, ends[0]).receive(9, DEADLINE_S)) == b"early"


def test_data_and_the_end_in_one_event_are_both_received(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    """The end is told once, with the data: a short read must not make it forgotten."""
    peer.sendall(b"last words")
    peer.shutdown(socket.SHUT_WR)
    assert run(hub, lambda: [stream.receive(100, DEADLINE_S), stream.receive(100, DEADLINE_S), stream.receive(100, SHORT_S)]) == [
        b"last words", b"", b""]


def test_a_read_of_exactly_what_is_there_does_not_hang_the_next(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    def use() -> list[bytes]:
        peer.sendall(b"12345678")
        got = [stream.receive(4, DEADLINE_S), stream.receive(4, DEADLINE_S)]
        hub.call_at(hub.now + 0.01, lambda: peer.sendall(b"more"))
        return [*got, stream.receive(4, DEADLINE_S)]

    assert run(hub, use) == [b"1234", b"5678", b"more"]


def test_nothing_in_time_is_a_timeout_and_the_stream_lives_on(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    def use() -> bytes:
        with pytest.raises(StreamTimeout):
            stream.receive(9, SHORT_S)
        peer.sendall(b"late")
        return stream.receive(9, DEADLINE_S)

    assert run(hub, use) == b"late"


def test_a_reset_is_told(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    def use() -> None:
        stream.send(b"unread", DEADLINE_S)
        hub.call_at(hub.now + 0.01, lambda: reset(peer))
        stream.receive(9, DEADLINE_S)

    with pytest.raises(StreamClosed, match="reset by peer"):
        run(hub, use)


def test_receive_or_is_broken_off_when_the_other_side_is_gone(hub: Hub, stream: GreenStream) -> None:
    gone = [False]
    watched = Watching(lambda: gone[0])

    def leave() -> None:
        assert watched.waiting is stream
        gone[0] = True
        stream.break_off()

    hub.call_at(hub.now + 0.02, leave)
    assert run(hub, lambda: stream.receive_or(9, DEADLINE_S, watched)) is None
    assert watched.waiting is None


def test_receive_or_goes_on_when_nobody_is_gone(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    hub.call_at(hub.now + 0.02, stream.break_off)
    hub.call_at(hub.now + 0.04, lambda: peer.sendall(b"x"))
    assert run(hub, lambda: stream.receive_or(9, DEADLINE_S, Watching(lambda: False))) == b"x"
    with pytest.raises(StreamTimeout):
        run(hub, lambda: stream.receive_or(9, SHORT_S, Watching(lambda: False)))


def reader(peer: socket.socket, received: list[bytes], size: int) -> threading.Thread:
    def read() -> None:
        time.sleep(0.05)  # until all buffers are full
        left = size
        while left > 0:
            data = peer.recv(1 << 16)
            received.append(data)
            left -= len(data) or left

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("method", ["send", "send_unless_answered"])
def test_all_is_sent_though_the_peer_reads_slowly(hub: Hub, stream: GreenStream, peer: socket.socket, method: str) -> None:
    data = bytes(range(256)) * (1 << 16)  # 16 MiB: more than the buffers on the way hold
    received: list[bytes] = []
    thread = reader(peer, received, len(data))
    result = run(hub, lambda: getattr(stream, method)(data, DEADLINE_S))
    thread.join(DEADLINE_S)
    assert b"".join(received) == data
    assert result == (len(data) if method == "send_unless_answered" else False)


def test_a_small_send_goes_out_at_once(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    assert run(hub, lambda: stream.send(b"x", DEADLINE_S)) is True
    assert peer.recv(9) == b"x"


def test_a_peer_that_takes_nothing_is_a_timeout(hub: Hub, stream: GreenStream) -> None:
    with pytest.raises(StreamTimeout):
        run(hub, lambda: stream.send(bytes(1 << 24), SHORT_S))


def test_an_answer_breaks_a_send_off(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    hub.call_at(hub.now + 0.02, lambda: peer.sendall(b"enough"))
    data = bytes(1 << 24)
    sent = run(hub, lambda: stream.send_unless_answered(data, DEADLINE_S))
    assert 0 < sent < len(data)
    assert run(hub, lambda: stream.receive(9, DEADLINE_S)) == b"enough"


def test_quiet_is_open_and_empty(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    def use() -> list[bool]:
        seen = [stream.is_quiet()]
        peer.sendall(b"xy")
        hub.sleep(0.01)
        seen.append(stream.is_quiet())
        stream.receive(2, DEADLINE_S)  # all that is there, which a read of that size does not tell
        seen.append(stream.is_quiet())
        peer.shutdown(socket.SHUT_WR)
        hub.sleep(0.01)
        seen.append(stream.is_quiet())
        stream.close()
        return [*seen, stream.is_quiet()]

    assert run(hub, use) == [True, False, True, False, False]


def test_closing_twice_is_closing_once(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    def use() -> None:
        stream.close()
        stream.close()
        hub.sleep(0.001)

    run(hub, use)
    assert peer.recv(9) == b""


def test_a_detached_socket_stays_open(hub: Hub, stream: GreenStream, peer: socket.socket) -> None:
    connected = stream.detach()
    run(hub, lambda: hub.sleep(0.001))
    connected.send(b"still")
    assert peer.recv(9) == b"still"
    connected.close()


def test_a_reset_is_sent(hub: Hub) -> None:
    mine, theirs = tcp_pair()
    mine.setblocking(False)
    run(hub, lambda: [GreenStream(hub, mine).reset(), hub.sleep(0.001)])
    with pytest.raises(ConnectionResetError):
        theirs.recv(9)


def test_a_closed_stream_has_no_socket(hub: Hub, ends: Ends) -> None:
    """A new connection may have its descriptor's number by then."""
    stream = GreenStream(hub, ends[0].detach())
    run(hub, lambda: [stream.close(), hub.sleep(0.001)])
    assert ends[1].recv(9) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        _ = stream.connected
    stream.shut_down()  # of no effect


def segments_received(connected: socket.socket) -> int:
    """tcpi_segs_in of tcp_info (linux/tcp.h)."""
    return int(struct.unpack_from("I", connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 140)[0])


@pytest.mark.skipif(compiled.loop is None, reason="only in C")
def test_the_last_bytes_leave_with_the_end_in_one_packet(hub: Hub) -> None:
    counts = []
    for _ in range(5):  # a machine that stands still between the two calls lets them go by themselves after 0.2 s
        mine, theirs = tcp_pair()
        mine.setblocking(False)
        before = segments_received(theirs)
        stream = GreenStream(hub, mine)
        run(hub, lambda stream=stream: [stream.send_last(b"last", DEADLINE_S), stream.close(), hub.sleep(0.001)])  # type: ignore[misc]
        theirs.settimeout(DEADLINE_S)
        assert (theirs.recv(9), theirs.recv(9)) == (b"last", b"")
        counts.append(segments_received(theirs) - before)
        theirs.close()
    assert min(counts) == 1, counts


def test_last_bytes_arrive_before_the_reset_that_bytes_unread_make(hub: Hub) -> None:
    mine, theirs = tcp_pair()
    mine.setblocking(False)
    theirs.settimeout(DEADLINE_S)
    with theirs:
        theirs.sendall(b"more")
        assert select.select([mine], [], [], DEADLINE_S)[0]
        stream = GreenStream(hub, mine.detach())  # no event has told it of the bytes
        run(hub, lambda: [stream.send_last(b"last", DEADLINE_S), stream.close(), hub.sleep(0.001)])
        assert theirs.recv(16) == b"last"


def test_last_bytes_that_a_peer_does_not_take_at_once_all_arrive(hub: Hub) -> None:
    mine, theirs = tcp_pair()
    mine.setblocking(False)
    stream, data = GreenStream(hub, mine), b"much " * 2_000_000
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(iter(lambda: theirs.recv(1 << 20), b"")), daemon=True)
    theirs.settimeout(DEADLINE_S)
    reader.start()
    assert not run(hub, lambda: [stream.send_last(data, DEADLINE_S), stream.close(), hub.sleep(0.001)])[0]
    reader.join(DEADLINE_S)
    assert b"".join(received) == data


# -- TLS -----------------------------------------------------------------------------------------------------------
