"""Two sockets that are connected: one becomes a stream, the other is its peer."""
from __future__ import annotations

import socket

Ends = tuple[socket.socket, socket.socket]


def unix_pair() -> Ends:
    return socket.socketpair()


def tcp_pair() -> Ends:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return mine, theirs
