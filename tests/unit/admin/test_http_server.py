"""The server against clients that do not mean well, on real connections."""
from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from prefork_lb.admin import http_server
from tests.support.place import HOST
from tests.support.waiting import wait_until
from tests.unit.shared.processes import Child

GET = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


@Request.application
def hello(request: Request) -> Response:
    return Response(f"{request.path} {len(request.get_data())}")


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server with room for four connections, on which a request may take half a second."""
    monkeypatch.setattr(http_server, "_CONNECTIONS", 4)
    monkeypatch.setattr(http_server, "_REQUEST_S", 0.5)
    with socket.create_server((HOST, 0)) as listener:
        child = Child(lambda: http_server.AdminServer(hello, listener).run())
        yield listener.getsockname()
        child.kill()


def answer(connection: socket.socket, data: bytes = GET) -> bytes:
    connection.sendall(data)
    return connection.recv(65536)


def connect(address: Any) -> socket.socket:
    return socket.create_connection(address, 20)


def test_a_request_that_does_not_come_ends_its_connection(address: Any) -> None:
    with connect(address) as slow:
        slow.sendall(GET[:-2])

        def is_closed() -> bool:
            try:
                slow.sendall(b"X: y\r\n")
                slow.settimeout(0.1)
                return slow.recv(100) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(is_closed, "the connection is closed, however it drips", 20)


def test_a_connection_that_waits_makes_room_for_a_new_one(address: Any) -> None:
    waiting = [connect(address) for _ in range(12)]
    with connect(address) as newcomer:
        assert b"200 OK" in answer(newcomer)
    for connection in waiting:
        connection.close()


@pytest.mark.parametrize(("data", "status"), [
    (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
    (b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"413"),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    (b"\0\r\n\r\n", b"400"),
])
def test_what_is_too_large_or_no_http_is_refused(address: Any, data: bytes, status: bytes) -> None:
    with connect(address) as client:
        assert answer(client, data).split(b" ")[1] == status
    with connect(address) as client:
        assert b"200 OK" in answer(client)
