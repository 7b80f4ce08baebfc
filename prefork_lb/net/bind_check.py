"""Checks whether an address can be listened on, and leaves no listener behind."""
from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection
from pathlib import Path

from prefork_lb.gunicorn.internals import parse_address


def why_not_bound(bind: str, ours: Collection[str]) -> str:
    """Why gunicorn could not listen on `bind`; "" if it could. gunicorn closes its listeners on the addresses `ours` first."""
    try:
        address = parse_address(bind)
    except RuntimeError as exc:
        return str(exc)
    if isinstance(address, int):  # a descriptor that is open already
        return ""
    if isinstance(address, str):
        folder = Path(address).parent
        return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder}: no folder that may be written to"
    host, port = address
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(where)
            tried.listen(1)
    except OSError as exc:
        # Another address with the same port, as "0.0.0.0:80" after "127.0.0.1:80".
        if exc.errno == errno.EADDRINUSE and any(_port(other) == port for other in ours):
            return ""
        return exc.strerror or str(exc)
    return ""


def _port(bind: str) -> int | None:
    address = parse_address(bind)
    return int(address[1]) if isinstance(address, tuple) else None
