"""Takes clients from a listening socket.

Python's own accept makes an object in Python around the one in C, and the descriptor non-blocking by a further system call.
"""
from __future__ import annotations

import os
import socket

from prefork_lb.green import compiled


class Listening:
    """A listening socket that does not block."""

    def __init__(self, listener: socket.socket, kind: type[socket.SocketType] = socket.SocketType) -> None:
        """`kind` is the class of the clients' sockets; socket.socket, which costs more, is what `ssl` can wrap."""
        self._listener = listener
        self._kind = kind
        self._family = listener.family
        listener.setblocking(False)

    def accept(self) -> tuple[socket.SocketType, str, int] | None:
        """The next client's socket, which does not block, its host and port ("" and 0: no IP). None when no client waits.

        Raises OSError as accept(2) does.
        """
        if compiled.loop is None:
            return self._accept()
        found = compiled.loop.accept(self._listener.fileno())
        if found is None:
            return None
        descriptor, host, port = found
        try:
            return self._kind(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, descriptor), host, port
        except BaseException:
            os.close(descriptor)
            raise

    def _accept(self) -> tuple[socket.SocketType, str, int] | None:
        try:
            connected, address = self._listener.accept()
        except BlockingIOError:
            return None
        connected.setblocking(False)
        host, port = ("", 0) if self._family == socket.AF_UNIX else address[:2]
        return connected, host, port
