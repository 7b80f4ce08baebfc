"""The configuration as values: every key, its type, its range and its default. A pool's are in `config.pool`.

Contract: docs/configuration.md is generated from these modules; `doc` in the metadata is the text there.
"""
from __future__ import annotations

import os
from typing import Annotated, Literal

from msgspec import Meta, field

from prefork_lb.config.admin import AdminConfig
from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.config.log import LogConfig
from prefork_lb.config.metrics import MetricsConfig
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.routes import RouteConfig
from prefork_lb.config.section import MIB, Seconds, Section, meta
from prefork_lb.config.tracing import TracingConfig
from prefork_lb.wire.head import HeadLimits

DEFAULT_BIND = "127.0.0.1:8000"


class CertificateConfig(Section, frozen=True):
    """A certificate for clients, `[[listen.certificates]]` (ProxyWorker). The first one is also the default: for clients that
    name no host, and for hosts without a certificate. With a certificate, all of `bind` is TLS. HUP loads the files again."""

    certificate: Annotated[str, meta("PEM file with the certificate and its chain.", min_length=1)]
    key: Annotated[str, meta("PEM file with the private key; none: it is in the certificate's file.")] = ""
    hosts: Annotated[tuple[str, ...], meta(
        'Names that clients ask for (SNI), or "*.example.org" for all one label below; only the first certificate may have none.'
    )] = ()


class ListenConfig(Section, frozen=True):
    """Where gunicorn accepts connections. gunicorn's own command line wins, and so do sockets inherited from systemd."""

    bind: Annotated[tuple[str, ...], meta(
        'Addresses to listen on: "HOST:PORT", "[IPv6]:PORT" or "unix:/path".', min_length=1
    )] = (DEFAULT_BIND,)
    workers: Annotated[Annotated[int, Meta(ge=1, le=256)] | Literal["auto"], meta(
        'Worker processes; "auto" is the number of CPU cores that may be used.'
    )] = "auto"
    proxy_protocol: Annotated[bool, meta(
        "Connections from `proxy.trusted_proxies` begin with a PROXY header, version 1 or 2, that names the client "
        "(ProxyWorker)."
    )] = False
    linger: Annotated[float, meta(
        "Seconds for which a worker that was replaced (by a reload, an upgrade or max_requests) goes on serving its tunnels and "
        "responses; after that it ends them. 0: gunicorn's `graceful_timeout`. (ProxyWorker)",
        ge=0, le=604800
    )] = 3600.0
    certificates: tuple[CertificateConfig, ...] = ()

    def worker_count(self) -> int:
        """The number of worker processes."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers


class TimeoutsConfig(Section, frozen=True):
    """How long to wait. When a server exceeds `connect` or `response`, the client gets 504, which names the phase."""

    head: Annotated[Seconds, meta(
        "Seconds for the whole head of a client's request, from its first byte (ProxyWorker); then 408."
    )] = 20.0
    connect: Annotated[Seconds, meta(
        "Seconds until a server has accepted a connection; for a name, all its addresses together."
    )] = 3.0
    response: Annotated[Seconds, meta("Seconds from the request until the head of the response.")] = 60.0
    idle: Annotated[Seconds, meta(
        "Seconds between two reads, or two writes, of a body, on either side; in a tunnel, of silence on both sides."
    )] = 60.0
    filter: Annotated[Seconds, meta(
        "Seconds that a call of a filter may take. One that takes longer goes on, and is told in the log and counted."
    )] = 1.0
    body: Annotated[float, meta(
        "Seconds that a client may keep the balancer waiting for the body of a request, in all; every `limits.body_rate` bytes "
        "that come give one second more. Then 408. The time that a server takes does not count. 0: no limit but `idle`.",
        ge=0, le=86400
    )] = 20.0


class KeepaliveConfig(Section, frozen=True):
    """Connections to servers that are kept for the next request."""

    connections: Annotated[int, meta(
        "Idle connections kept for each server by each worker; 0: none.", ge=0, le=65536
    )] = 64
    seconds: Annotated[Seconds, meta(
        "How long a connection may idle. Less than the servers' own keep-alive time is best."
    )] = 60.0


class LimitsConfig(Section, frozen=True):
    """Limits: the largest head that is accepted, from clients and servers; the slowest body; and the delay above which requests
    are refused."""

    head_bytes: Annotated[int, meta("Bytes of a head in all.", ge=1024, le=MIB)] = 32768
    line_bytes: Annotated[int, meta("Bytes of its start line, and of each field.", ge=256, le=MIB)] = 8192
    fields: Annotated[int, meta("Number of fields.", ge=10, le=10000)] = 100
    body_rate: Annotated[int, meta(
        "Bytes a second that a client must send of a request's body once `timeouts.body` is used up.", ge=1, le=MIB
    )] = 500
    lag: Annotated[float, meta(
        "Seconds that requests may wait before the worker begins with them. When the wait stays longer for a second, requests "
        "that waited longer get 503 with Retry-After, and new TLS connections are closed. 0: no limit. (ProxyWorker)", ge=0, le=60
    )] = 0.5

    @property
    def head(self) -> HeadLimits:
        """The limits of a head."""
        return HeadLimits(self.head_bytes, self.line_bytes, self.fields)


class BuffersConfig(Section, frozen=True):
    """Memory between clients and servers, `[proxy.buffers]`, so that a slow client does not occupy a server. A connection uses
    memory only while its client is slow."""

    request: Annotated[int, meta(
        "A request's body whose Content-Length is at most this many bytes is received whole before a server is claimed. If the "
        "client leaves meanwhile, no server is claimed; retries send the body again from memory. Longer bodies are passed on as "
        "they come. 0: all bodies are passed on as they come.", ge=0, le=16 * MIB
    )] = 16384
    chunked: Annotated[bool, meta(
        "Also receive chunked bodies up to `request` bytes before a server is claimed. Leave it off when clients wait for a part "
        "of the answer in the middle of their body: that part would never come."
    )] = False
    response: Annotated[int, meta(
        "Bytes of a response that are received from the server while the client is too slow to take them. When the rest of a "
        "response fits, the server is released at once and the client is served from memory. 0: none.", ge=0, le=16 * MIB
    )] = 65536


class ProxyConfig(Section, frozen=True):
    """How requests are passed on."""

    trusted_proxies: Annotated[tuple[str, ...], meta(
        "Addresses and networks (CIDR) of proxies in front of this one, whose X-Forwarded-* and Forwarded are "
        "believed and extended. These fields are dropped from other clients' requests."
    )] = ()
    via: Annotated[str, meta(
        "This proxy's name in the Via field.", pattern=r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+(:[0-9]+)?\Z", max_length=100
    )] = "prefork_lb"
    doubtful_paths: Annotated[Literal["refuse", "pass"], meta(
        "What becomes of a path that servers are known to read in different ways (`%2F`, `;`, a backslash and the like), where "
        "routes have `paths`: 400, or it is compared as it is. See [routing.md](routing.md)."
    )] = "refuse"
    request_id: Annotated[bool, meta(
        "Give each request an X-Request-ID and a traceparent, or take those of a trusted proxy. Servers, the access log and "
        "error pages tell them; those of other clients are dropped."
    )] = False
    server_timing: Annotated[bool, meta(
        "Tell clients in Server-Timing how long the queue, connecting and the server took."
    )] = False
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    keepalive: KeepaliveConfig = field(default_factory=KeepaliveConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    buffers: BuffersConfig = field(default_factory=BuffersConfig)


class StateConfig(Section, frozen=True):
    """The state file: it keeps what operators have set (states, weights and limits of servers, weights of splits), and servers
    that were added, over a restart."""

    file: Annotated[str, meta("Path of the file; its folder must exist and be writable. None: nothing is kept.")] = ""
    max_age: Annotated[Seconds, meta("Seconds after which the file is too old and is ignored.")] = 3600.0


class Config(Section, frozen=True):
    """A whole configuration."""

    pools: Annotated[dict[str, PoolConfig], meta("The pools by name.", min_length=1)]
    listen: ListenConfig = field(default_factory=ListenConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    admin: AdminConfig | None = None
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    cluster: ClusterConfig | None = None
    log: LogConfig = field(default_factory=LogConfig)
    routes: tuple[RouteConfig, ...] = ()
    state: StateConfig = field(default_factory=StateConfig)
    source: str = ""

    @property
    def counts(self) -> bool:
        """Whether somebody wants statistics."""
        return self.admin is not None or bool(self.metrics.statsd)
