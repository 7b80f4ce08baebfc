"""Takes clients from a listening socket.

A client is a descriptor. An object around it, as Python's own accept makes it, costs further system calls.
"""
from __future__ import annotations

import socket

from prefork_lb.green import compiled


class Listening:
    """A listening socket that does not block."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._family = listener.family
        listener.setblocking(False)

    def accept(self) -> tuple[int, str, int] | None:
        """The next client's descriptor, which does not block, its host and port ("" and 0: no IP). None when no client waits.

        Raises OSError as accept(2) does.
        """
        if compiled.loop is None:
            return self._accept()
        return compiled.loop.accept(self._listener.fileno())

    def _accept(self) -> tuple[int, str, int] | None:
        try:
            connected, address = self._listener.accept()
        except BlockingIOError:
            return None
        connected.setblocking(False)
        host, port = ("", 0) if self._family == socket.AF_UNIX else address[:2]
        return connected.detach(), host, port
