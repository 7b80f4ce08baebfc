"""What requests are told apart by: from the configuration's `key` to the function that finds it in a request."""
from __future__ import annotations

from collections.abc import Callable

from prefork_lb.balance.policy import RequestInfo
from prefork_lb.wire.cookies import cookie
from prefork_lb.wire.forwarded import told_client
from prefork_lb.wire.query import parameters

KeyOf = Callable[[RequestInfo], bytes]
"""Finds the key of a request; empty: it has none."""


def policy_key_finder(key: str, is_trusted: Callable[[str], bool]) -> KeyOf:
    """The function for a `key` as the configuration has it; it was checked there. `is_trusted`: whether the proxy at an address
    is believed."""
    kind, _, text = key.partition(":")
    name = text.encode()
    if kind == "source":
        return lambda request: told_client(request.index, request.client, is_trusted).encode()
    if kind == "uri":
        return lambda request: _origin_form(request.target)
    if kind == "path":
        return lambda request: _origin_form(request.target).partition(b"?")[0]
    if kind == "header":
        name = name.lower()
        return lambda request: request.index.get(name, _NONE)[0]
    if kind == "cookie":
        return lambda request: cookie(request.index.get(b"cookie", ()), name) or b""
    return lambda request: next(parameters(request.target, name), b"")


_NONE = (b"",)


def _origin_form(target: bytes) -> bytes:
    """Path and query, also of an absolute-form target (RFC 9112 3.2.2)."""
    if target.startswith(b"/"):
        return target
    rest = target.partition(b"://")[2]
    begin = min(rest.find(b"/") % (len(rest) + 1), rest.find(b"?") % (len(rest) + 1))  # not found: the end
    path = rest[begin:]
    return path if path.startswith(b"/") else b"/" + path
