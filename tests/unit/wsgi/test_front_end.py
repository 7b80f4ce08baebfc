"""The WSGI front end over the real engine and scripted servers; the server in front of it is played by the test."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.request import NO_HEAD, Request
from prefork_lb.routing.actions import Actions, redirecting
from prefork_lb.routing.match import Route, Router
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wsgi.client import ClientRules
from prefork_lb.wsgi.front_end import WSGIFrontEnd
from tests.unit.proxy.loopback import DEADLINE_S, Connection, ScriptedServer
from tests.unit.proxy.rig import Rig

RULES = ClientRules(HeadLimits(), DEADLINE_S, ahead_bytes=100)
HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nhi"


class Started:
    """A start_response that notes what it is given, and the body read to its end."""

    def __init__(self) -> None:
        self.status = ""
        self.fields: list[tuple[str, str]] = []
        self.closed = False  # the server in front was told to close the client's connection afterwards

    def start_response(self, status: str, fields: list[tuple[str, str]]) -> None:
        self.status, self.fields = status, fields

    def force_close(self) -> None:
        self.closed = True


def saying(response: bytes) -> Callable[[Connection], None]:
    """Answer each request with these bytes; hang up where they are not a whole response."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(response)

    return script


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return mine, theirs


class Front:
    """One request through the front end, with a real connection to a client."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._application = WSGIFrontEnd(rig.engine, lambda address: False, RULES)
        self.started = Started()
        self.client, self.accepted = tcp_pair()
        self.client.settimeout(DEADLINE_S)

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.accepted.close()

    def records(self) -> list[Request]:
        """The records of exchanges that are over, from now on."""
        found: list[Request] = []
        self._application = WSGIFrontEnd(self._rig.engine, lambda address: False, RULES, found.append)
        return found

    def environ(self, **more: Any) -> dict[str, Any]:
        return {
            "REQUEST_METHOD": "GET",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "RAW_URI": "/",
            "HTTP_HOST": "a.test",
            "REMOTE_ADDR": "192.0.2.7",
            "SERVER_PORT": "8000",
            "wsgi.input": io.BytesIO(),
            "gunicorn.socket": self.accepted,
            **more,
        }

    def call(self, **more: Any) -> Iterator[bytes]:
        return self._application(self.environ(**more), self.started.start_response)

    def fetch(self, **more: Any) -> bytes:
        body = self.call(**more)
        try:
            return b"".join(body)
        finally:
            getattr(body, "close", lambda: None)()


def test_a_response_is_passed_on() -> None:
    with ScriptedServer(saying(HI)) as server, Rig(server.address) as rig, Front(rig) as front:
        assert front.fetch() == b"hi"
        assert front.started.status == "200 OK"
        assert front.started.fields == [("X-A", "1"), ("Via", "1.1 lb"), ("Content-Length", "2")]
        assert not front.started.closed
        assert rig.in_flight == [0]


def test_a_status_without_a_reason_gets_its_own() -> None:
    with (
        ScriptedServer(saying(b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n")) as server,
        Rig(server.address) as rig,
        Front(rig) as front,
    ):
        assert front.fetch() == b""
        assert front.started.status == "404 Not Found"


def test_the_lease_is_given_back_when_the_body_is_closed_early() -> None:
    def slow(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
        connection.wait_for_end()

    with ScriptedServer(slow) as server, Rig(server.address) as rig, Front(rig) as front:
        body = front.call()
        assert next(body) == b"hi"
        assert rig.in_flight == [1]
        body.close()  # type: ignore[attr-defined]
        assert rig.in_flight == [0]


def test_the_lease_is_given_back_when_the_response_cannot_be_started() -> None:
    class Refused(Exception):
        pass

    def start_response(*_: object) -> None:
        raise Refused

    def slow(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
        connection.wait_for_end()

    with ScriptedServer(slow) as server, Rig(server.address) as rig, Front(rig) as front:
        with pytest.raises(Refused):
            WSGIFrontEnd(rig.engine, lambda address: False, RULES)(front.environ(), start_response)
        assert rig.in_flight == [0]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a short response is waited for, however slow this machine is."""
    monkeypatch.setattr("prefork_lb.wsgi.front_end._REST_WAIT_S", DEADLINE_S)


def test_a_short_response_in_pieces_gives_its_server_back_before_the_client_is_sent_to(patient: None) -> None:
    def piecewise(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
        connection.send(b" there")
        connection.send(b"!")

    with ScriptedServer(piecewise) as server, Rig(server.address) as rig, Front(rig) as front:
        body = front.call()
        assert next(body) == b"hi there!"
        assert rig.in_flight == [0]


def test_a_longer_response_is_passed_on_as_it_comes(patient: None) -> None:
    def piecewise(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\nhi")
        connection.wait_for_end()

    with ScriptedServer(piecewise) as server, Rig(server.address) as rig, Front(rig) as front:
        body = front.call()
        assert next(body) == b"hi"
        assert rig.in_flight == [1]
        body.close()  # type: ignore[attr-defined]


def test_what_came_before_a_break_goes_out_before_it_shows(patient: None) -> None:
    def piecewise(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
        connection.send(b" th")

    with ScriptedServer(piecewise) as server, Rig(server.address) as rig, Front(rig) as front:
        body = front.call()
        assert next(body) == b"hi th"
        with pytest.raises(ConnectionResetError):
            next(body)


@pytest.mark.parametrize(
    ("head", "reset"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", False),  # fewer bytes than told: the client sees it
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", True),
    ],
)
def test_a_broken_body_does_not_look_whole(head: bytes, reset: bool) -> None:
    with ScriptedServer(saying(head)) as server, Rig(server.address) as rig, Front(rig) as front:
        with pytest.raises(ConnectionResetError):
            front.fetch()
        assert rig.in_flight == [0]
        if reset:
            with pytest.raises(ConnectionResetError):
                front.client.recv(1)
        else:
            front.accepted.close()
            assert front.client.recv(1) == b""


def test_interim_responses_go_to_the_client_directly() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    with ScriptedServer(saying(hints + HI)) as server, Rig(server.address) as rig, Front(rig) as front:
        front.fetch()
        assert front.client.recv(999) == hints
    with ScriptedServer(saying(hints + HI)) as server, Rig(server.address) as rig, Front(rig) as front:
        front.fetch(SERVER_PROTOCOL="HTTP/1.0")  # which has none
        front.accepted.close()
        assert front.client.recv(999) == b""


def test_a_client_that_has_left_ends_the_exchange() -> None:
    def silent(connection: Connection) -> None:
        connection.head()
        connection.wait_for_end()

    with ScriptedServer(silent) as server, Rig(server.address) as rig, Front(rig) as front:
        front.client.close()
        with pytest.raises(ConnectionResetError, match="client left"):
            front.fetch()
        assert rig.in_flight == [0]


def test_a_body_goes_to_the_server() -> None:
    received: list[bytes] = []

    def echo(connection: Connection) -> None:
        connection.head()
        received.append(connection.body(5))
        connection.send(HI)

    with ScriptedServer(echo) as server, Rig(server.address) as rig, Front(rig) as front:
        assert front.fetch(REQUEST_METHOD="POST", CONTENT_LENGTH="5", **{"wsgi.input": io.BytesIO(b"hello")}) == b"hi"
    assert received == [b"hello"]


def test_a_body_that_ends_early_is_a_client_that_left() -> None:
    def wait_for_the_body(connection: Connection) -> None:
        connection.head()
        connection.body(2)
        connection.wait_for_end()

    with ScriptedServer(wait_for_the_body) as server, Rig(server.address) as rig, Front(rig) as front:
        with pytest.raises(ConnectionResetError, match="client left"):
            front.fetch(REQUEST_METHOD="POST", CONTENT_LENGTH="5", **{"wsgi.input": io.BytesIO(b"he")})
        assert rig.in_flight == [0]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"HTTP_HOST": "a b"}, 400),
        ({"HTTP_HOST": "a.test,b.test"}, 400),
        ({"SERVER_PROTOCOL": "HTTP/2.0"}, 505),
        ({"REQUEST_METHOD": "TRACE"}, 405),
        ({"HTTP_EXPECT": "more"}, 417),
        ({"HTTP_TRANSFER_ENCODING": "gzip, chunked"}, 501),
        ({"HTTP_X_A": "a\r\nX-Evil: 1"}, 400),
        ({"RAW_URI": "/a#b"}, 400),
        ({"RAW_URI": "/\n"}, 400),
        ({"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": "chunked"}, 400),
    ],
)
def test_what_the_server_in_front_let_through_is_refused_and_the_connection_closed(
    more: dict[str, str], status: int
) -> None:
    with ScriptedServer(saying(HI)) as server, Rig(server.address) as rig, Front(rig) as front:
        body = front.fetch(**more)
        assert front.started.status.startswith(f"{status} ")
        assert dict(front.started.fields)["Content-Length"] == str(len(body))
        assert front.started.closed
        assert server.accepted == 0


def test_no_target_splits_the_answer_of_a_route() -> None:
    with Rig() as rig, Front(rig) as front:
        moved = Actions(answer=redirecting("https://example.org{path}", 308))
        rig.engine = Engine(Router([Route("", actions=moved)]), {}, rig.settings)
        front.records()
        front.fetch(RAW_URI="/a")
        assert dict(front.started.fields)["Location"] == "https://example.org/a"
        front.fetch(RAW_URI="/a\nX-Evil:1")
        assert front.started.status.startswith("400 ") and front.started.closed


def test_a_page_for_head_has_no_body() -> None:
    with Rig() as rig, Front(rig) as front:
        assert front.fetch(REQUEST_METHOD="HEAD") == b""
        assert front.started.status == "503 Service Unavailable"
        assert int(dict(front.started.fields)["Content-Length"]) > 0


def test_a_servers_failure_is_told_in_the_form_asked_for() -> None:
    with ScriptedServer(saying(b"garbage\r\n\r\n")) as server, Rig(server.address) as rig, Front(rig) as front:
        assert b'"status": 502' in front.fetch(HTTP_ACCEPT="application/json")
        assert not front.started.closed


def test_a_server_other_than_gunicorn_has_no_socket_to_give() -> None:
    with (
        ScriptedServer(saying(b"HTTP/1.1 103 Hints\r\n\r\n" + HI)) as server,
        Rig(server.address) as rig,
        Front(rig) as front,
    ):
        assert front.fetch(**{"gunicorn.socket": None}) == b"hi"


def test_the_end_of_an_exchange_is_told_once() -> None:
    with ScriptedServer(saying(HI)) as server, Rig(server.address) as rig, Front(rig) as front:
        records = front.records()
        body = front.call()
        assert records == [], "the client has not got it yet"
        assert b"".join(body) == b"hi"
        body.close()  # type: ignore[attr-defined]
        body.close()  # type: ignore[attr-defined]
        (record,) = records
        assert (record.status, record.bytes_out, record.ending, record.server) == (200, 2, "finished", rig.servers[0])
        assert 0 < record.started <= record.leased_at <= record.answered_at <= record.ended_at


def test_a_response_that_is_closed_before_its_end_was_left_by_the_client() -> None:
    with ScriptedServer(saying(HI)) as server, Rig(server.address) as rig, Front(rig) as front:
        records = front.records()
        body = front.call()
        next(body)
        body.close()  # type: ignore[attr-defined]
        assert [(record.status, record.ending) for record in records] == [(499, "client left")]


def test_a_refused_request_and_a_refused_head_are_told() -> None:
    with Rig() as rig, Front(rig) as front:
        records = front.records()
        front.fetch()
        front.fetch(SERVER_PROTOCOL="HTTP/2.0")
        assert [(record.status, record.ending, record.head is NO_HEAD) for record in records] == [
            (503, "no server", False), (505, "refused", True)]
        assert all(record.bytes_out for record in records)


def test_a_response_that_breaks_off_is_told() -> None:
    with ScriptedServer(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")) as server, Rig(server.address) as rig, \
            Front(rig) as front:
        records = front.records()
        with pytest.raises(OSError):
            front.fetch()
        assert [(record.status, record.ending, record.bytes_out) for record in records] == [(200, "server broke off", 2)]


def test_a_response_that_cannot_be_started_is_told() -> None:
    def start_response(*_: object) -> None:
        raise ValueError("a field that gunicorn refuses")

    with ScriptedServer(saying(HI)) as server, Rig(server.address) as rig, Front(rig) as front:
        records = front.records()
        front.started.start_response = start_response  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="refuses"):
            front.call()
        assert [(record.ending, record.server) for record in records] == [("internal error", rig.servers[0])]
