"""Why a connection to a server cannot be made: in the operator's words, and whether the server or this host is the cause."""
from __future__ import annotations

import errno
import socket
import ssl

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors

# This process has no descriptor left, this host has none, or the kernel has no memory for one more socket.
_OUT_OF_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def failure_text(exc: OSError) -> str:
    """Why a connection failed. A certificate that does not verify says why."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"TLS: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {exc.reason or exc.strerror or exc}"
    return exc.strerror or str(exc)


def connect_error(name: object, exc: OSError, family: int, where: tuple[str, int] | str) -> ConnectFailed | OutOfDescriptors:
    """The error for a connection to the server `name` that failed with `exc`; `family` and `where` say what was connected to."""
    kind = OutOfDescriptors if _is_ours(exc, family, where) else ConnectFailed
    return kind(f"{name}: {failure_text(exc)}")


def connect_timeout(name: object, timeout_s: float) -> ConnectTimeout:
    """The error for a server that did not accept in time."""
    return ConnectTimeout(f"{name}: no connection within {timeout_s:.3g} s")


def _is_ours(exc: OSError, family: int, where: tuple[str, int] | str) -> bool:
    if exc.errno == errno.EADDRNOTAVAIL:
        return _has_source_address(family, where)
    return exc.errno in _OUT_OF_DESCRIPTORS


def _has_source_address(family: int, where: tuple[str, int] | str) -> bool:
    """Whether this host has an address from which `where` can be reached.

    connect(2) answers EADDRNOTAVAIL both when all local ports toward an address are in use and when there is no source address,
    as for IPv6 on a host without it. A datagram socket needs no port of TCP's, so it fails for the second cause only.
    """
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            return asked.connect_ex(where) != errno.EADDRNOTAVAIL
    except OSError:
        return True  # no descriptor for the question either
