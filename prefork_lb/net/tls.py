"""TLS contexts: for connections to servers, and for clients, with several certificates."""
from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for clients that ask for one of `hosts`; `key` empty: it is in the certificate's file."""

    certificate: str
    key: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """TLS toward a server."""

    context: ssl.SSLContext
    server_name: str  # sent (SNI) and verified


def upstream_context(verify: bool = True, ca_file: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """A context for connections to servers: TLS 1.2 or later, and HTTP/1.1 in it.

    Without `ca_file` the system's authorities are trusted. Raises ValueError that names the file that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as exc:
        raise ValueError(f"{ca_file}: no certificates of authorities: {_why(exc)}") from exc
    tell_cuts(context)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        load_pair(context, certificate, key)
    return context


def tell_cuts(context: ssl.SSLContext) -> None:
    """Let connections of this context raise an error where the peer ends without close_notify: what it sent may be cut.

    Python before gh-95494 takes that for an ordinary end with OpenSSL 3, unless told otherwise: 3.11.2 does, which Debian 12 has.
    """
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF


def check_pair(certificate: str, key: str) -> None:
    """Raise ValueError, with the file and what is wrong, unless these are a certificate and its key."""
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate with its chain, and its key. Raises ValueError that names the file."""
    for name in filter(None, (certificate, key)):
        try:
            with open(name, "rb"):
                pass
        except OSError as exc:
            raise ValueError(f"{name}: cannot be read: {exc.strerror}") from exc
    try:
        # Without a password here OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key or None, password=_no_password)
    except (OSError, ValueError) as exc:
        raise ValueError(f"{certificate}: not a certificate with the key of {key or 'the same file'}: {_why(exc)}") from exc


def _no_password() -> str:
    raise ValueError("the key is encrypted; decrypt it, as nobody is there to type the password")


def _why(exc: Exception) -> str:
    reason = getattr(exc, "reason", None) or getattr(exc, "strerror", None)
    return str(reason or exc).replace("_", " ").lower()


def choose_by_name(first: ssl.SSLContext, default: ssl.SSLContext, named: Mapping[str, ssl.SSLContext]) -> None:
    """Make `first` choose the context by the host that the client asks for (SNI, RFC 6066 3).

    Names are lower-case; "*.example.org" stands for names one label below (RFC 6125 6.4.3). Other clients get `default`.
    """

    def choose(connection: Any, name: str | None, context: ssl.SSLContext) -> None:
        found = default
        if name:
            name = name.lower().removesuffix(".")
            found = named.get(name) or named.get("*." + name.partition(".")[2]) or default
        if found is not context:
            connection.context = found

    first.sni_callback = choose
