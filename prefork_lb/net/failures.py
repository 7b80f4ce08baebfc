"""Why a connection to a server cannot be made: in the operator's words, and whether the server or this host is the cause."""
from __future__ import annotations

import errno
import socket
import ssl

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.net.descriptors import is_out_of_descriptors


def failure_text(exc: OSError) -> str:
    """Why a connection failed. A certificate that does not verify says why."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {_lower(exc.verify_message).rstrip('.')}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS handshake: {_lower((exc.reason or exc.strerror or str(exc)).replace('_', ' '))}"
    return exc.strerror or str(exc)


def _lower(text: str) -> str:
    """`text` with a lower-case first letter; a text all in capitals, as some of OpenSSL's are, wholly in lower case."""
    return text.lower() if text.isupper() else text[:1].lower() + text[1:] if text[1:2].islower() else text


def connect_error(name: object, exc: OSError, family: int, where: tuple[str, int] | str) -> ConnectFailed | OutOfDescriptors:
    """The error for a connection to the server `name` that failed with `exc`; `family` and `where` say what was connected to."""
    is_ours = _has_source_address(family, where) if exc.errno == errno.EADDRNOTAVAIL else is_out_of_descriptors(exc)
    kind = OutOfDescriptors if is_ours else ConnectFailed
    return kind(f"{name}: {failure_text(exc)}")


def connect_timeout(name: object, timeout_s: float, is_connected: bool) -> ConnectTimeout:
    """The error for a connection that was not ready in time; `is_connected`: all but the TLS handshake was done."""
    return ConnectTimeout(f"{name}: no {'TLS handshake' if is_connected else 'connection'} within {timeout_s:.3g} s")


def _has_source_address(family: int, where: tuple[str, int] | str) -> bool:
    """Whether this host has an address from which `where` can be reached.

    connect(2) answers EADDRNOTAVAIL both when all local ports toward an address are in use and when there is no source address,
    as for IPv6 on a host without it. A datagram socket needs no TCP port, so it fails for the second cause only.
    """
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            return asked.connect_ex(where) != errno.EADDRNOTAVAIL
    except OSError:
        return True  # no descriptor is left for this test
