"""The listener of the administration interface."""
from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import time

from prefork_lb.net.address import Address

_AGAIN_S = 1.0
_BACKLOG = 128

log = logging.getLogger("prefork_lb")


def listen(address: Address) -> socket.socket:
    """A socket that listens at `address`. Tries again every second until it does; the reason is logged when it changes."""
    told = ""
    while True:
        try:
            return _listen_at_path(address.path) if address.is_unix else _listen_at_port(address)
        except OSError as exc:
            reason = exc.strerror or str(exc)
            if reason != told:
                told = reason
                log.error("the administration interface cannot listen at %s, which is tried again every %g s: %s", address,
                          _AGAIN_S, reason)
        time.sleep(_AGAIN_S)


def remove_listener(address: Address) -> None:
    """Remove what a listener leaves in the file system."""
    if address.is_unix:
        with contextlib.suppress(OSError):
            os.unlink(address.path)


def _listen_at_port(address: Address) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM,
                                                          flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_at_path(path: str) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that was killed. Raises OSError when something else is there."""
    try:
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(1.0)
        try:
            tried.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
