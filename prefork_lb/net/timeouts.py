"""Sets how long a read or a write on a socket may wait, in the cheapest way that the kind of socket allows.

Facts: a Python socket with a timeout is non-blocking underneath and polls before every operation: two system calls and two
releases of the GIL instead of one. The kernel can keep the time itself (SO_RCVTIMEO, SO_SNDTIMEO; socket(7)). It answers EAGAIN
when the time is over, and a blocking socket raises that as BlockingIOError. gevent's sockets and TLS support only `settimeout`.
"""
from __future__ import annotations

import _socket
import socket
import ssl
import struct

Expired = (TimeoutError, BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""The exceptions of a socket operation whose time is over. TLS raises the last two when the timeout is zero."""


def kernel_keeps_time(connected: object) -> bool:
    """Whether this is an ordinary socket, whose timeouts the kernel can keep."""
    return isinstance(connected, _socket.socket) and not isinstance(connected, ssl.SSLSocket)


def set_receive_timeout(connected: socket.socket, seconds: float) -> None:
    """Let a read wait `seconds` at most. The socket must be blocking when the kernel keeps the time."""
    if kernel_keeps_time(connected):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
    else:
        connected.settimeout(seconds)


def set_send_timeout(connected: socket.socket, seconds: float) -> None:
    """Let a write wait `seconds` at most."""
    if kernel_keeps_time(connected):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))
    else:
        connected.settimeout(seconds)


def _timeval(seconds: float) -> bytes:
    # A struct timeval of zero means no limit, so the smallest value is a microsecond.
    whole = int(seconds)
    return struct.pack("@ll", whole, max(int((seconds - whole) * 1e6), 0 if whole else 1))
