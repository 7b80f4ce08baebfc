"""Request bodies on their way to scripted servers: early answers, servers that stall, clients that leave."""

from __future__ import annotations

import threading

import pytest

from prefork_lb.errors import BadResponse, ClientGone, SendTimeout
from prefork_lb.net.sockets import SocketStream
from prefork_lb.net.stream import Stream
from prefork_lb.proxy.attempt import Timeouts
from tests.support.waiting import wait_until
from tests.unit.proxy.loopback import DEADLINE_S, Client, Connection, ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request

IMPATIENT = Timeouts(connect=DEADLINE_S, response=0.3, idle=0.3)
LENGTH_2 = [(b"Content-Length", b"2")]


class Endless:
    """A body source that never ends by itself; counts what was read."""

    def __init__(self, total: int) -> None:
        self.left = total
        self.read_bytes = 0

    def read(self, limit: int) -> bytes:
        size = min(limit, self.left)
        self.left -= size
        self.read_bytes += size
        return bytes(size)

    def wait(self, server: Stream, timeout_s: float) -> bool:
        return True

    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []


LARGE = 1 << 28
LARGE_LENGTH = [(b"Content-Length", b"%d" % LARGE)]
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbig!"


def test_an_early_answer_stops_the_upload() -> None:
    def refuse(connection: Connection) -> None:
        connection.head()
        connection.send(TOO_LARGE)
        connection.wait_for_end()

    source = Endless(LARGE)
    with ScriptedServer(refuse) as server, Rig(server.address) as rig:
        assert rig.fetch(b"POST", source, LARGE_LENGTH) == (413, b"big!")
        assert source.left > 0
        assert rig.in_flight == [0] and rig.idle == [0]  # in the middle of a request: of no use to another one


def test_an_early_answer_is_read_though_the_server_hangs_up() -> None:
    def refuse(connection: Connection) -> None:
        connection.head()
        connection.send(TOO_LARGE)
        connection.hang_up()

    with ScriptedServer(refuse) as server, Rig(server.address) as rig:
        assert rig.fetch(b"POST", Endless(LARGE), LARGE_LENGTH) == (413, b"big!")
        assert rig.in_flight == [0] and rig.idle == [0]


def test_an_interim_response_in_the_middle_does_not_stop_the_upload() -> None:
    total = 1 << 22

    def process(connection: Connection) -> None:
        connection.head()
        connection.body(1000)
        connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        connection.body(total - 1000)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.wait_for_end()

    client = Client()
    with ScriptedServer(process) as server, Rig(server.address) as rig:
        reply = rig.exchange(request(b"PUT", Endless(total), [(b"Content-Length", b"%d" % total)], client))
        assert reply.status == 200
        assert [head.status for head in client.relayed] == [102]
        reply.close()
        assert rig.idle == [1]


def test_a_final_answer_right_behind_an_interim_one_stops_the_upload() -> None:
    def refuse(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 102 Processing\r\n\r\n" + TOO_LARGE)
        stopped.wait(DEADLINE_S)  # neither reads on nor hangs up

    stopped = threading.Event()
    with ScriptedServer(refuse) as server, Rig(server.address, timeouts=Timeouts(DEADLINE_S, DEADLINE_S, 1.0)) as rig:
        try:
            assert rig.fetch(b"POST", Endless(LARGE), LARGE_LENGTH) == (413, b"big!")
        finally:
            stopped.set()


def test_a_server_that_takes_no_byte_is_timed_out() -> None:
    def stuck(connection: Connection) -> None:
        connection.head()
        stopped.wait(DEADLINE_S)

    stopped = threading.Event()
    with ScriptedServer(stuck) as server, Rig(server.address, timeouts=IMPATIENT) as rig:
        try:
            with pytest.raises(SendTimeout, match=r"0\.3 s"):
                rig.fetch(b"POST", Endless(LARGE), LARGE_LENGTH)
        finally:
            stopped.set()
        assert rig.in_flight == [0] and rig.idle == [0]


def test_a_client_that_leaves_in_its_body_costs_the_server_nothing_but_the_connection() -> None:
    def take(connection: Connection) -> None:
        connection.head()
        connection.wait_for_end()
        ended.set()

    ended = threading.Event()
    with ScriptedServer(take) as server, Rig(server.address) as rig:
        with pytest.raises(ClientGone):
            rig.fetch(b"POST", Source(b"a", ClientGone("left")), LENGTH_2)
        assert ended.wait(DEADLINE_S)
        assert rig.in_flight == [0] and rig.idle == [0]


def test_a_client_that_left_before_any_server_was_claimed_costs_nothing() -> None:
    with ScriptedServer(lambda connection: None) as server, Rig(server.address) as rig:
        with pytest.raises(ClientGone):
            rig.fetch(b"POST", Source(ClientGone("left")), LENGTH_2)
        assert server.accepted == 0 and rig.in_flight == [0]


def test_a_chunked_upload_arrives_with_its_trailers() -> None:
    received: list[bytes] = []

    def echo(connection: Connection) -> None:
        connection.head()
        received.append(connection.body(len(b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n")))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    source = Source(b"ab", b"c", trailers=[(b"X-Sum", b"1"), (b"Content-Length", b"9")])
    with ScriptedServer(echo) as server, Rig(server.address) as rig:
        assert rig.fetch(b"POST", source, [(b"Transfer-Encoding", b"chunked")]) == (200, b"")
    assert received == [b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n"]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the request is about to be sent, which then waits for what the server does. So a reset is met by the send,
    not by the connect before it or the receive behind it."""
    event = threading.Event()
    send = SocketStream.send

    def late(stream: SocketStream, data: bytes, timeout_s: float) -> None:
        event.set()
        wait_until(lambda: not stream.is_quiet(), "what the server does first")
        send(stream, data, timeout_s)

    monkeypatch.setattr(SocketStream, "send", late)
    return event


def test_a_reset_while_the_request_is_sent_is_told_as_such(begun: threading.Event) -> None:
    def reset(connection: Connection) -> None:
        begun.wait(DEADLINE_S)
        connection.reset()

    with ScriptedServer(reset) as server, Rig(server.address) as rig:
        with pytest.raises(BadResponse, match="connection lost while the request was sent: Connection reset by peer"):
            rig.fetch()
        assert rig.in_flight == [0] and server.accepted == 1


def test_an_answer_before_the_end_is_read_though_the_send_fails(begun: threading.Event) -> None:
    def refuse(connection: Connection) -> None:
        begun.wait(DEADLINE_S)
        connection.send(TOO_LARGE)
        connection.reset()

    with ScriptedServer(refuse) as server, Rig(server.address) as rig:
        assert rig.fetch()[0] == 413
        assert rig.in_flight == [0] and rig.idle == [0]
