"""Servers that answer checks as a test says, and the checks."""
from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

from prefork_lb.controller.probe import CheckOutcome, Probe, Prober
from prefork_lb.net.address import Address

SHORT_S = 0.5
SHORT_TLS_S = 1.5  # the certificates of the machine are read first
PROMPT_S = 5.0  # far below what a check without a deadline would take, far above what a busy machine needs
DEADLINE_S = 20.0


def answer(body: bytes = b"ready", status: str = "200 OK", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status.encode(), len(body), fields, body)


Turn = Callable[[socket.socket, threading.Event], None]
"""Says something in answer to a request; the event is set when the test is over."""


def says(data: bytes) -> Turn:
    return lambda connection, over: connection.sendall(data)


def closes_after(data: bytes) -> Turn:
    def turn(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data)
        connection.close()

    return turn


def resets_after(data: bytes) -> Turn:
    def turn(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return turn


def hangs(connection: socket.socket, over: threading.Event) -> None:
    over.wait(DEADLINE_S)


def drips(head: bytes, drop: bytes) -> Turn:
    """Something every 50 ms, far more often than any timeout of a single read."""
    def turn(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(head)
        while not over.wait(0.05):
            connection.sendall(drop)

    return turn


class Server:
    """Takes its turns in their order, one for each request, over all connections; the last one again and again."""

    def __init__(self, listener: socket.socket, turns: tuple[Turn, ...], context: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self.names: list[str | None] = []
        self._turns = list(turns)
        self._listener = listener
        self._context = context
        if context is not None:
            context.sni_callback = lambda _, name, __: self.names.append(name)
        self._over = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def address(self) -> Address:
        if self._listener.family == socket.AF_UNIX:
            return Address(path=self._listener.getsockname())
        return Address("127.0.0.1", self._listener.getsockname()[1], tls=self._context is not None)

    def close(self) -> None:
        self._over.set()
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread; close alone would leave it in accept() for good
        self._acceptor.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                while head := self._head(connection):
                    self.heads.append(head)
                    turn = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
                    turn(connection, self._over)
        except OSError:
            pass  # the prober has gone

    def _head(self, connection: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = connection.recv(4096)
            if not data:
                return b""
            head += data
        return head


Serve = Callable[..., Server]


def unused_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Address("127.0.0.1", listener.getsockname()[1])


def http(address: Address, timeout_s: float = DEADLINE_S, **more: object) -> Probe:
    return Probe("http", address, timeout_s=timeout_s, **more)  # type: ignore[arg-type]


def timed(prober: Prober, probe: Probe) -> CheckOutcome:
    """A check that must end soon after its timeout."""
    started = time.monotonic()
    outcome = prober.probe(probe)
    assert time.monotonic() - started < PROMPT_S
    return outcome
