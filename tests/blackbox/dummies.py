"""Proxies that are none, to show that the suite finds them out."""
from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from tests.support.place import HOST

Serve = Callable[[socket.socket], None]


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _server(serve: Serve) -> Iterator[int]:
    listener = socket.create_server((HOST, 0), backlog=128)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextlib.contextmanager
def copier(origin: int) -> Iterator[int]:
    """Copies bytes both ways and understands none of them."""

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection((HOST, origin)) as server:
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()

    with _server(serve) as port:
        yield port


@contextlib.contextmanager
def refuser(origin: int) -> Iterator[int]:
    """Answers everything with 400 and closes."""

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(10)
            seen = b""
            while b"\n" not in seen and (data := client.recv(65536)):
                seen += data
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    with _server(serve) as port:
        yield port
