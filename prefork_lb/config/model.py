"""The configuration as values: every key, its type, its range and its default in one place.

Contract: docs/configuration.md is generated from this module; `doc` in the metadata is the text there.
"""
from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

MIB = 1024 * 1024
DEFAULT_BIND = "127.0.0.1:8000"


def _meta(doc: str, **limits: Any) -> Meta:
    return Meta(description=doc, **limits)


Seconds = Annotated[float, Meta(gt=0, le=86400)]


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Certificate(_Section, frozen=True):
    """A certificate for clients, `[[listen.certificates]]` (ProxyWorker). The first one is for clients that name no host, or one
    that no certificate is for. With any, all of `bind` is TLS. HUP loads them anew."""

    certificate: Annotated[str, _meta("PEM file with the certificate and its chain.", min_length=1)]
    key: Annotated[str, _meta("PEM file with the private key; none: it is in the certificate's file.")] = ""
    hosts: Annotated[tuple[str, ...], _meta(
        'Names that clients ask for (SNI), or "*.example.org" for all one label below; only the first certificate may have none.'
    )] = ()


class Listen(_Section, frozen=True):
    """Where gunicorn accepts connections. gunicorn's own command line wins, and so do sockets inherited from systemd."""

    bind: Annotated[tuple[str, ...], _meta(
        'Addresses to listen on: "HOST:PORT", "[IPv6]:PORT" or "unix:/path".', min_length=1
    )] = (DEFAULT_BIND,)
    workers: Annotated[Annotated[int, Meta(ge=1, le=256)] | Literal["auto"], _meta(
        'Worker processes; "auto" is the number of CPU cores that may be used.'
    )] = "auto"
    proxy_protocol: Annotated[bool, _meta(
        "Connections from `proxy.trusted_proxies` begin with a PROXY header, version 1 or 2, that names the client "
        "(ProxyWorker)."
    )] = False
    certificates: tuple[Certificate, ...] = ()

    def worker_count(self) -> int:
        """The number of worker processes."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers


class Admin(_Section, frozen=True):
    """The administration interface. Accepted, not active in this version."""

    bind: Annotated[str, _meta("Address of API, metrics and dashboard.")]


class Timeouts(_Section, frozen=True):
    """How long to wait. The client gets 504, with the phase in it, when a server lets `connect` or `response` run out."""

    head: Annotated[Seconds, _meta(
        "Seconds for the whole head of a client's request, from its first byte (ProxyWorker); then 408."
    )] = 20.0
    connect: Annotated[Seconds, _meta(
        "Seconds until a server has accepted a connection; of a name, over all its addresses."
    )] = 3.0
    response: Annotated[Seconds, _meta("Seconds from the request until the head of the response.")] = 60.0
    idle: Annotated[Seconds, _meta(
        "Seconds between two reads, or two writes, of a body, on either side."
    )] = 60.0


class Keepalive(_Section, frozen=True):
    """Connections to servers that are kept for the next request."""

    connections: Annotated[int, _meta(
        "Idle connections kept for each server by each worker; 0: none.", ge=0, le=65536
    )] = 64
    seconds: Annotated[Seconds, _meta(
        "How long a connection may idle. Less than the servers' own keep-alive time is best."
    )] = 60.0


class Limits(_Section, frozen=True):
    """Sizes beyond which a head is refused, on either side."""

    head_bytes: Annotated[int, _meta("Bytes of a head in all.", ge=1024, le=MIB)] = 32768
    line_bytes: Annotated[int, _meta("Bytes of its start line, and of each field.", ge=256, le=MIB)] = 8192
    fields: Annotated[int, _meta("Number of fields.", ge=10, le=10000)] = 100


class Proxy(_Section, frozen=True):
    """How requests are passed on."""

    trusted_proxies: Annotated[tuple[str, ...], _meta(
        "Addresses and networks (CIDR) of proxies in front of this one, whose X-Forwarded-* and Forwarded are "
        "believed and extended. Everybody else's are dropped."
    )] = ()
    via: Annotated[str, _meta(
        "This proxy's name in the Via field.", pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+(:[0-9]+)?\Z", max_length=100
    )] = "prefork_lb"
    timeouts: Timeouts = field(default_factory=Timeouts)
    keepalive: Keepalive = field(default_factory=Keepalive)
    limits: Limits = field(default_factory=Limits)


class Server(_Section, frozen=True):
    """A server of a pool: its address as a string, or a table with more."""

    address: Annotated[str, _meta(
        '"HOST:PORT", "[IPv6]:PORT" or "unix:/path"; "https://HOST:PORT" for TLS, see `[pools.NAME.tls]`.'
    )]
    weight: Annotated[int, _meta("Its share of the load against the other servers.", ge=1, le=1000)] = 1
    max_connections: Annotated[int, _meta(
        "Requests in flight on it at most, over all workers; 0: no limit. When all servers are full the client gets "
        "503.", ge=0, le=1_000_000
    )] = 0
    backup: Annotated[bool, _meta("Used only while no other server of the pool can be.")] = False
    proxy_protocol: Annotated[int, _meta(
        "Version of the PROXY header that tells it of the client's connection; 0: none. Its connections are not kept then.",
        ge=0, le=2
    )] = 0


class TLS(_Section, frozen=True):
    """TLS toward the `https://` servers of a pool."""

    verify: Annotated[bool, _meta("Whether a server's certificate must be good, and for its name.")] = True
    ca_file: Annotated[str, _meta("PEM file of the authorities to believe; none: the system's.")] = ""
    server_name: Annotated[str, _meta("Name that is sent (SNI) and verified; none: the host of the server's address.")] = ""
    certificate: Annotated[str, _meta("PEM file with this proxy's own certificate and chain; none: it has none.")] = ""
    key: Annotated[str, _meta("PEM file with its private key; none: it is in the certificate's file.")] = ""


class Retries(_Section, frozen=True):
    """What happens when a server cannot be reached."""

    attempts: Annotated[int, _meta(
        "Servers tried for one request at most. Another is tried only when no byte of the request was sent.", ge=1, le=10
    )] = 2


class Health(_Section, frozen=True):
    """Active checks. Accepted, not active in this version."""

    path: Annotated[str, _meta("Path that is asked for.", pattern=r"^/[\x21-\x7e]*$")] = "/"
    interval: Annotated[Seconds, _meta("Seconds between two checks.")] = 2.0
    rise: Annotated[int, _meta("Good checks in a row until a server is up.", ge=1, le=100)] = 2
    fall: Annotated[int, _meta("Bad checks in a row until a server is down.", ge=1, le=100)] = 3


class Ejection(_Section, frozen=True):
    """Passive removal after failures. Accepted, not active in this version."""

    failures: Annotated[int, _meta("Failures in a row until a server is ejected.", ge=1, le=1000)] = 5
    seconds: Annotated[Seconds, _meta("How long it is out.")] = 10.0


class Sticky(_Section, frozen=True):
    """Sessions that stay with a server. Accepted, not active in this version."""

    mode: Annotated[Literal["cookie"], _meta("How a session is known.")] = "cookie"


class Pool(_Section, frozen=True):
    """A set of servers, `[pools.NAME]`."""

    servers: Annotated[tuple[Server, ...], _meta("The servers.", min_length=1)]
    policy: Annotated[str, _meta(
        'How a server is picked: a policy\'s name, or "package.module:Class" for one\'s own.'
    )] = "least-connections"
    tls: TLS | None = None
    retries: Retries = field(default_factory=Retries)
    health: Health | None = None
    ejection: Ejection | None = None
    sticky: Sticky | None = None


class Route(_Section, frozen=True):
    """Which requests a pool gets, `[[routes]]`. The most specific one wins: host, then the longest path."""

    pool: Annotated[str, _meta("Name of the pool.")]
    hosts: Annotated[tuple[str, ...], _meta(
        'Host names, or "*.example.org" for all below one; none: any host.'
    )] = ()
    paths: Annotated[tuple[str, ...], _meta("Prefixes of the path; none: any path.")] = ()


class Config(_Section, frozen=True):
    """A whole configuration."""

    pools: Annotated[dict[str, Pool], _meta("The pools by name.", min_length=1)]
    listen: Listen = field(default_factory=Listen)
    proxy: Proxy = field(default_factory=Proxy)
    admin: Admin | None = None
    routes: tuple[Route, ...] = ()
    source: str = ""
