"""A server that gives every request on a new connection one answer, byte by byte as told, and closes."""
from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

_TIMEOUT_S = 20.0
WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@contextlib.contextmanager
def answering(answer: bytes = WELL, host: str = "127.0.0.1", port: int = 0, expects: bytes = b"") -> Iterator[str]:
    """Its address. A connection that does not begin with `expects` is closed without an answer."""
    with socket.create_server((host, port)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, answer, expects), daemon=True)
        thread.start()
        yield f"{host}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(_TIMEOUT_S)


def _serve(listener: socket.socket, answer: bytes, expects: bytes) -> None:
    while True:
        try:
            connected, _ = listener.accept()
        except OSError:
            return
        with connected, contextlib.suppress(OSError):
            connected.settimeout(_TIMEOUT_S)
            data = connected.recv(65536)
            if data and data.startswith(expects):
                connected.sendall(answer)
                connected.shutdown(socket.SHUT_WR)
                connected.recv(65536)
