"""Where a request goes: its target's form and its Host (RFC 9112 3.2)."""
from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, NamedTuple

from prefork_lb.errors import BadRequest, NotImplementedByProxy
from prefork_lb.wire import grammar
from prefork_lb.wire.head import RequestHead

_HASH: Final = ord("#")  # Python looks for bytes in bytes only after it has failed to take them for a number
# RFC 1035 2.3.4, and a port. Names are remembered here and in `forwarded`, so their size must have a bound.
_LONGEST_HOST: Final = 255 + len(":65535")


class Destination(NamedTuple):
    target: bytes  # as it is sent to a server, and for routing: origin-form unchanged, or `*`
    host: bytes | None  # the authority for Host; None when an HTTP/1.0 client gave none
    name: str  # the host's name, lower-case and without port; empty without a host


_new = tuple.__new__  # what the class does, at half the price: every new head comes by


def destination(head: RequestHead) -> Destination:
    """Check target and Host of a request. Raises BadRequest, or NotImplementedByProxy for CONNECT."""
    method, target = head.method, head.target
    hosts = head.index.get(b"host")
    # RFC 9112 3.2: a request without a Host, with several, or with an invalid one is answered with 400.
    if hosts is None:
        if head.minor == 1:
            raise BadRequest("no Host")
        host = None
    elif len(hosts) == 1:
        host = hosts[0]
    else:
        raise BadRequest("more than one Host")
    if method == b"CONNECT":
        raise NotImplementedByProxy("CONNECT: this is a reverse proxy")
    if target[:1] != b"/":
        if target != b"*":
            host_name(host)  # replaced below, but an invalid one is refused all the same
            target, host = _absolute(method, target)
        elif method != b"OPTIONS":
            raise BadRequest("the target * is for OPTIONS")
    if _HASH in target:
        raise BadRequest("a fragment in the request target")
    # Whatever the front end let through: the target goes to a server, and into answers of routes. `wire.field_lines` checks the
    # fields.
    if not head.is_parsed and grammar.request_line.fullmatch(b"%b %b HTTP/1.1" % (method, target)) is None:
        raise BadRequest(f"not a request line: {method[:40]!r} {target[:80]!r}")
    return _new(Destination, (target, host, host_name(host)))


def _absolute(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    # RFC 9112 3.2.2: the authority of an absolute-form target replaces Host, and a server gets the origin-form.
    match = grammar.absolute_target.fullmatch(target)
    if match is None or match[1].lower() not in (b"http", b"https") or not match[2]:
        raise BadRequest(f"a request target of no known form: {target[:80]!r}")
    rest = match[3]
    if not rest and method == b"OPTIONS":
        return b"*", match[2]  # RFC 9112 3.2.4
    return rest if rest.startswith(b"/") else b"/" + rest, match[2]


# Raising keeps nothing, so what is kept is no longer than _LONGEST_HOST: 1 KiB an entry.
@lru_cache(maxsize=1024)
def host_name(host: bytes | None) -> str:
    """The name in a Host field, in lower case and without the port; empty without a host. Raises BadRequest."""
    if not host:
        return ""
    match = grammar.authority.fullmatch(host)
    if match is None or len(host) > _LONGEST_HOST or (match[2] and int(match[2]) > 65535) or not _is_well_bracketed(match[1]):
        raise BadRequest(f"not a host: {host[:80]!r}")
    # RFC 1034 3.1: a last dot means the same name.
    return match[1].decode("ascii").lower().removesuffix(".")


def _is_well_bracketed(host: bytes) -> bool:
    """Whether brackets, if there are any, hold an IPv6 address; of a future kind (`v`) the grammar is all that is known."""
    if host[:1] != b"[" or host[1:2] == b"v":
        return True
    try:
        ipaddress.IPv6Address(host[1:-1].decode("ascii"))
    except ValueError:
        return False
    return True
