"""TLS clients and servers that see how a connection ends."""
from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
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
            thread.join(10)
