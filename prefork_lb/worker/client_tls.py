"""TLS toward clients: a context for each certificate, and the keys of session tickets.

Facts of the world and what they force on us:

- OpenSSL makes the keys of session tickets together with a context. It reads a ticket with the keys of the context that the
  connection began with, whatever context the callback for the server's name chooses then (`session_ctx`).
- Workers that made their contexts for themselves could not read one another's tickets. So connections begin with a context that
  has no certificate. gunicorn's master makes it once, and all workers inherit it, those of a reload, too.
- A ticket stands for the checks of the handshake that it comes from. Where clients have to show certificates, or a hook of the
  site makes the contexts, a reload may change what is checked. So there each worker has keys of its own.
"""
from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from prefork_lb.gunicorn.internals import ssl_context
from prefork_lb.net.tls import Certificate, choose_by_name, tell_cuts


@lru_cache(maxsize=1)
def ticket_context() -> ssl.SSLContext:
    """The context with the keys of tickets; made by the first call, which is to be in the master."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def client_context(settings: Any, certificates: Sequence[Certificate]) -> ssl.SSLContext:
    """The context with which the connections of clients begin, by gunicorn's `settings`."""
    default = _made(settings)
    named: dict[str, ssl.SSLContext] = {}
    for certificate in certificates:
        context = _made(_OtherCertificate(settings, certificate))
        named.update((host.lower().removesuffix("."), context) for host in certificate.hosts)
    hook = settings.settings["ssl_context"]
    first = ticket_context() if default.verify_mode is ssl.CERT_NONE and hook.get() is hook.default else default
    # A connection has these from the context that it begins with.
    first.options = default.options
    first.minimum_version, first.maximum_version = default.minimum_version, default.maximum_version
    choose_by_name(first, default, named)
    return first


def _made(settings: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = ssl_context(settings)
    tell_cuts(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


class _OtherCertificate:
    """gunicorn's settings with another certificate: gunicorn's factory then makes a context for it."""

    def __init__(self, settings: Any, certificate: Certificate) -> None:
        self._settings = settings
        self.certfile = certificate.certificate
        self.keyfile = certificate.key or None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)
