"""TLS clients and servers that see how a connection ends."""
from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.certificates import Pair
from tests.support.client import Address, Connection


def believing(pair: Pair | None = None, shown: Pair | None = None) -> ssl.SSLContext:
    """A client's context that believes in `pair` alone (None: in anybody), and shows `shown`."""
    context = ssl.create_default_context(cafile=None if pair is None else str(pair.certificate))
    if pair is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


class SecureConnection(Connection):
    """A client's connection with TLS. A cut without close_notify is an error and no end (RFC 8446 6.1)."""

    def __init__(self, address: Address, context: ssl.SSLContext | None = None, name: str = "localhost", **more: Any) -> None:
        super().__init__(address, **more)
        try:
            self.sock: Any = (context or believing()).wrap_socket(self.sock, server_hostname=name, suppress_ragged_eofs=False)
        except BaseException:
            self.sock.close()
            raise

    def vanish(self) -> None:
        """Close the connection beneath TLS, without a word."""
        socket.socket(fileno=self.sock.detach()).close()


@contextlib.contextmanager
def scripted_tls_server(pair: Pair, answer: bytes, says_end: bool) -> Iterator[int]:
    """Answers the first request of each connection with `answer`, then ends it: in order, or without close_notify.

    Yields its port.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:  # the end of the test
                return
            with plain, contextlib.suppress(OSError):
                secure = context.wrap_socket(plain, server_side=True)
                while not secure.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                secure.sendall(answer)
                if says_end:
                    plain = secure.unwrap()
                    plain.close()
                else:
                    socket.socket(fileno=secure.detach()).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)


class TLSServer:
    """A small HTTPS server in a thread: answers every request, and notes what it saw. A context manager."""

    def __init__(self, pair: Pair, client_ca: Path | None = None) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pair.certificate, pair.key)
        if client_ca is not None:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.sni_callback = lambda connection, name, context: self.names.append(name)
        self.names: list[str | None] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> TLSServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)

    def _run(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:  # the end of the test
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as secure:
                buffer = b""
                while data := secure.recv(65536):
                    buffer += data
                    while b"\r\n\r\n" in buffer:
                        head, _, buffer = buffer.partition(b"\r\n\r\n")
                        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                        length = int(found[1]) if found else 0
                        while len(buffer) < length:
                            buffer += secure.recv(65536)
                        body, buffer = b"%d" % length, buffer[length:]
                        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        except OSError:
            pass  # a client that does not believe in us hangs up; the test sees its answer
