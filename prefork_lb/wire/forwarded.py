"""What a server is told about the client: X-Forwarded-*, Forwarded (RFC 7239) and Via (RFC 9110 7.6.3).

The values of a trusted proxy are believed and extended. Those of any other client are dropped: a client can write anything there.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from prefork_lb.wire.certificates import ClientCertificate
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.fields import cgi_name
from prefork_lb.wire.head import VIA, Index, Section

_LONGEST_ADDRESS: Final = 45  # an IPv6 address with an IPv4 one at its end
_ADDRESS: Final = re.compile(r"[0-9a-f:.]*[:.][0-9a-f:.]*")
_PREFIX: Final = b"x-forwarded-"
_TOLD_BY_PROXIES: Final = frozenset((b"forwarded", b"x-real-ip"))


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """The peer of the client's connection, as this proxy sees it."""

    address: str  # "" for a unix socket's client, which has none
    scheme: bytes  # http or https
    port: int  # of the listener that accepted; 0 for a unix socket
    trusted: bool  # its X-Forwarded-* and Forwarded are believed
    certificate: ClientCertificate | None = None  # that it has shown


def is_told_by_proxies(name: bytes) -> bool:
    """Whether a field (lower-case name) describes the client, in either spelling. This proxy replaces such fields by its own."""
    name = cgi_name(name)
    return name.startswith(_PREFIX) or name in _TOLD_BY_PROXIES


def told_client(index: Index, peer: str, is_trusted: Callable[[str], bool]) -> str:
    """The client's address: the peer's, or what trusted proxies tell in X-Forwarded-For, from the last one on.

    A member that is no address ends the search: the proxy that wrote it counts as the client.
    """
    if not is_trusted(peer):
        return peer
    client = peer
    for value in reversed(index.get(b"x-forwarded-for", ())):
        for member in reversed(value.split(b",")):
            told = _address(member.strip(b" \t"))
            if not told:
                return client
            client = told
            if not is_trusted(client):
                return client
    return client


def _address(member: bytes) -> str:
    """An address without brackets and port; empty for what is none."""
    text = member.decode("latin-1").lower()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # some proxies add the port
        text = text.partition(":")[0]
    return text if len(text) <= _LONGEST_ADDRESS and _ADDRESS.fullmatch(text) else ""


def client_scheme(index: Index, client: ClientInfo) -> bytes:
    """http or https: what the client itself speaks, as far as a trusted proxy in front tells it."""
    if client.trusted:
        for value in index.get(b"x-forwarded-proto", ()):
            told = value.partition(b",")[0].strip(b" \t").lower()
            if told in (b"http", b"https"):
                return told
    return client.scheme


def forwarded_lines(index: Index, client: ClientInfo, host: bytes | None) -> bytes:
    """The X-Forwarded-* and Forwarded lines to send to the server, for a request that came with the fields of `index`."""
    own = _own_lines(client.address, client.scheme, client.port, host)
    if not client.trusted:
        return own.whole
    lines = []
    for name, values in index.items():
        if is_told_by_proxies(name) and b"_" not in name and name not in (b"x-forwarded-for", b"forwarded"):
            # These fields describe the client's connection to the first proxy, so its values stay.
            lines.append(field_lines([(name.title(), value) for value in values]))
    for name, line in own.about_connection.items():
        if name not in index:
            lines.append(line)
    chain = [*filter(None, index.get(b"x-forwarded-for", ())), own.address]
    elements = [*filter(None, index.get(b"forwarded", ())), own.element]
    return b"%bX-Forwarded-For: %b\r\nForwarded: %b\r\n" % (b"".join(lines), b", ".join(chain), b", ".join(elements))


def via(section: Section, minor: int, pseudonym: bytes) -> bytes:
    """The value of Via with this proxy in it; `minor` is the version in which the message came in."""
    member = _member(minor, pseudonym)
    return b", ".join([*filter(None, section[b"via"]), member]) if section.notable & VIA else member


def told_lines(section: Section, minor: int, client: ClientInfo, host: bytes | None, pseudonym: bytes) -> bytes:
    """What `forwarded_lines` and `via` tell a server, as lines."""
    if client.trusted or section.notable & VIA:
        return b"%bVia: %b\r\n" % (forwarded_lines(section, client, host), via(section, minor, pseudonym))
    return _own_told(client.address, client.scheme, client.port, host, minor, pseudonym)


# Of clients whose heads tell nothing of this kind that would be believed: nearly all. Its size is that of `_own_lines`.
@lru_cache(maxsize=1024)
def _own_told(client: str, scheme: bytes, port: int, host: bytes | None, minor: int, pseudonym: bytes) -> bytes:
    return b"%bVia: %b\r\n" % (_own_lines(client, scheme, port, host).whole, _member(minor, pseudonym))


@lru_cache(maxsize=64)
def _member(minor: int, pseudonym: bytes) -> bytes:
    return b"1.%d %b" % (minor, pseudonym)


def times_passed(section: Section, pseudonym: bytes) -> int:
    """How many members of Via name this proxy: how often the message has passed it before."""
    if not section.notable & VIA:
        return 0
    members = [member.split() for value in section[b"via"] for member in value.split(b",")]
    return sum(1 for member in members if len(member) > 1 and member[1].lower() == pseudonym.lower())


@dataclass(frozen=True, slots=True)
class _OwnLines:
    """The lines that this proxy itself writes about a client."""

    address: bytes
    element: bytes
    about_connection: dict[bytes, bytes]
    whole: bytes


# A host has 261 bytes at most (wire/target.py): 2.5 KiB an entry.
@lru_cache(maxsize=1024)
def _own_lines(client: str, scheme: bytes, port: int, host: bytes | None) -> _OwnLines:
    address = client.encode() or b"unknown"
    # RFC 7239 4 and 6: an IPv6 address is in brackets, and a value that is not a token is in quotes.
    node = b'"[%b]"' % address if b":" in address else address
    element = b"for=%b;proto=%b" % (node, scheme) + (b';host="%b"' % host if host else b"")
    about = {b"x-forwarded-proto": b"X-Forwarded-Proto: %b\r\n" % scheme}
    if host:
        about[b"x-forwarded-host"] = b"X-Forwarded-Host: %b\r\n" % host
    if port:
        about[b"x-forwarded-port"] = b"X-Forwarded-Port: %d\r\n" % port
    whole = b"%bX-Forwarded-For: %b\r\nForwarded: %b\r\n" % (b"".join(about.values()), address, element)
    return _OwnLines(address, element, about, whole)
