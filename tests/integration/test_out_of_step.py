"""A server that answers twice: nobody gets the second answer, and the log tells of the server."""
from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.balancer import GTHREAD, PROXY, FrontEnd, pool_text
from tests.support.client import Connection
from tests.support.rig import Rig
from tests.support.waiting import wait_until

WRONG = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"


class Twice:
    """Answers every request with `right`; `speak` sends another response on every connection."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._connected: list[socket.socket] = []
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self._connected.append(connected)
            threading.Thread(target=self._answer, args=(connected,), daemon=True).start()

    @staticmethod
    def _answer(connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:
            while connected.recv(65536):
                connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright")

    def speak(self) -> None:
        for connected in self._connected:
            connected.sendall(WRONG)
        self._connected.clear()


@contextlib.contextmanager
def twice() -> Iterator[Twice]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Twice(listener)
        threading.Thread(target=server.run, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("front_end", [PROXY, GTHREAD], ids=str)
def test_a_second_response_reaches_nobody_and_is_told(rig: Rig, front_end: FrontEnd) -> None:
    with twice() as server:
        balancer = rig.balancer(pool_text([server.address]), front_end, workers=1)
        with Connection(balancer.address) as client:
            assert client.request("/").body == b"right"
            server.speak()
            for _ in range(3):
                assert client.request("/").body == b"right"
        wait_until(lambda: f"server {server.address} sent something on a connection without a request" in balancer.log(),
                   balancer.log)
