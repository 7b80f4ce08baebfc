"""The configuration as values: every key, its type, its range and its default in one place.

Contract: docs/configuration.md is generated from this module; `doc` in the metadata is the text there.
"""
from __future__ import annotations

import os
from typing import Annotated, Literal

from msgspec import Meta, field

from prefork_lb.config.admin import AdminConfig
from prefork_lb.config.log import LogConfig
from prefork_lb.config.section import Seconds, Section, meta
from prefork_lb.config.sticky import StickyConfig

MIB = 1024 * 1024
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
        "Seconds between two reads, or two writes, of a body, on either side."
    )] = 60.0
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
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    keepalive: KeepaliveConfig = field(default_factory=KeepaliveConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    buffers: BuffersConfig = field(default_factory=BuffersConfig)


class ServerConfig(Section, frozen=True):
    """A server of a pool: its address as a string, or a table with more."""

    address: Annotated[str, meta(
        '"HOST:PORT", "[IPv6]:PORT" or "unix:/path"; "https://HOST:PORT" for TLS, see `[pools.NAME.tls]`.'
    )]
    weight: Annotated[int, meta("Its share of the load against the other servers.", ge=1, le=1000)] = 1
    max_connections: Annotated[int, meta(
        "The most requests in flight on it, over all workers; 0: no limit. When all servers are full the client gets "
        "503.", ge=0, le=1_000_000
    )] = 0
    backup: Annotated[bool, meta("Used only while no other server of the pool is usable.")] = False
    public: Annotated[str, meta(
        'Where clients are sent in a pool with `mode = "redirect"`: "https://s1.example.com", without path and query. Health '
        "checks go to `address`."
    )] = ""
    route: Annotated[str, meta(
        'Its name in session cookies that end with ".ROUTE", for the mode `route` of `[pools.NAME.sticky]`.'
    )] = ""
    proxy_protocol: Annotated[int, meta(
        "Version of the PROXY header that tells it of the client's connection; 0: none. Its connections are not kept then.",
        ge=0, le=2
    )] = 0


class TLSConfig(Section, frozen=True):
    """TLS toward the `https://` servers of a pool."""

    verify: Annotated[bool, meta("Whether a server's certificate must be valid, and valid for its name.")] = True
    ca_file: Annotated[str, meta("PEM file of the authorities to trust; none: the system's.")] = ""
    server_name: Annotated[str, meta("Name that is sent (SNI) and verified; none: the host of the server's address.")] = ""
    certificate: Annotated[str, meta("PEM file with this proxy's own certificate and chain; none: it has none.")] = ""
    key: Annotated[str, meta("PEM file with its private key; none: it is in the certificate's file.")] = ""


Statuses = tuple[int | str, ...]
Percent = Annotated[int, Meta(ge=0, le=100)]


class RetriesConfig(Section, frozen=True):
    """When a failed attempt is made again, each time at another server.

    A request of which no byte was sent may always be sent again. Others only when their method is idempotent (GET, HEAD,
    OPTIONS, PUT, DELETE) or they have an Idempotency-Key. When all attempts fail the client gets the last answer of a server.
    """

    attempts: Annotated[int, meta("Attempts for one request at most, the first included; 1: no retries.", ge=1, le=10)] = 2
    on: Annotated[tuple[Literal["connect", "reset", "timeout"], ...], meta(
        'Failures: no connection, or not in time ("connect"); a connection that ended before the head of the response, or an '
        'invalid head ("reset"); a head that did not come in time ("timeout").'
    )] = ("connect", "reset")
    statuses: Annotated[Statuses, meta(
        "Statuses that are failures, too: numbers, or ranges like `\"502-504\"`; 200 and above."
    )] = ()
    budget: Annotated[Percent, meta(
        "The most retries, in percent of the pool's requests in the last seconds, over all workers. Many retries would make an "
        "overload worse."
    )] = 20
    floor: Annotated[int, meta("Retries in 10 s that are allowed whatever the budget says.", ge=0, le=100_000)] = 10
    backoff: Annotated[float, meta(
        "Seconds before the second retry; twice as many before each further one, times a random number from 0 to 1. The first "
        "retry waits only when a status was the reason.", ge=0, le=60
    )] = 0.025
    body_memory: Annotated[int, meta(
        "Bytes of a request's body kept in memory to send them again; more go to a temporary file.", ge=0, le=64 * MIB
    )] = 65536
    body_limit: Annotated[int, meta(
        "Bytes of a body kept in all; a longer body is sent only once.", ge=0, le=1024 * MIB
    )] = MIB
    hedge: Annotated[bool, meta(
        "Send an idempotent request without a body to a second server when the first has not answered within the time that 95 % "
        "of the pool's responses take; the first answer counts. Inside the same budget."
    )] = False


class HealthConfig(Section, frozen=True):
    """Active checks, `[pools.NAME.health]`: one prober for all workers asks every server again and again."""

    type: Annotated[Literal["http", "tcp"], meta(
        "`http`: a request must be answered as expected (over TLS for `https://` servers); `tcp`: a connection is enough."
    )] = "http"
    path: Annotated[str, meta("Path that is asked for.", pattern=r"^/[\x21-\x7e]*\Z")] = "/"
    method: Annotated[str, meta("Method.", pattern=r"^[A-Z]{1,20}\Z")] = "GET"
    host: Annotated[str, meta("Host field; none: the server's address.", pattern=r"^[\x21-\x7e]*\Z")] = ""
    headers: Annotated[dict[str, str], meta("Further fields, as a table.")] = field(default_factory=dict)
    statuses: Annotated[Statuses, meta("Statuses that are good: numbers, or ranges.")] = ("200-399",)
    text: Annotated[str, meta("Text that the body must hold, within its first 64 KiB; none: any body is good.")] = ""
    pattern: Annotated[str, meta("Regular expression that must be found there; none: any body is good.")] = ""
    interval: Annotated[Seconds, meta("Seconds between two checks, a tenth more or less by chance.")] = 2.0
    fast_interval: Annotated[Seconds, meta(
        "Seconds between two checks while a server is between up and down; `interval` is used where that is shorter."
    )] = 0.5
    timeout: Annotated[Seconds, meta("Seconds that a check may take in all.")] = 2.0
    rise: Annotated[int, meta("Good checks in a row until a server is up.", ge=1, le=100)] = 2
    fall: Annotated[int, meta("Bad checks in a row until a server is down.", ge=1, le=100)] = 3
    port: Annotated[int, meta("Port to check instead of the server's own; 0: its own.", ge=0, le=65535)] = 0
    start: Annotated[Literal["up", "checking"], meta(
        "A new server's state: `up`, or `checking`, in which it gets no request before the first good check."
    )] = "up"


class EjectionConfig(Section, frozen=True):
    """Passive removal after failures of real requests, `[pools.NAME.ejection]`; on unless `failures` and `share` are 0.

    Failures are: no connection, no response in time, a broken response, and the statuses listed. An ejected server comes back
    with one request, which must succeed. The last usable server is never ejected.
    """

    failures: Annotated[int, meta("Failures in a row until a server is ejected; 0: never for that.", ge=0, le=1000)] = 5
    share: Annotated[Percent, meta("Failures in percent of a window's requests until it is ejected; 0: never for that.")] = 0
    window: Annotated[Seconds, meta("Seconds of that window.")] = 10.0
    least_requests: Annotated[int, meta("With fewer requests in a window, `share` is ignored.", ge=1, le=1_000_000)] = 20
    statuses: Annotated[Statuses, meta(
        "Statuses that are failures of the server: numbers, or ranges; 429 and above. Below, they answer a mistake of the client."
    )] = ("500-599",)
    seconds: Annotated[Seconds, meta(
        "How long it is out the first time; times the number of its ejections in a row after that, a tenth more by chance."
    )] = 10.0
    max_seconds: Annotated[Seconds, meta("How long it is out at most.")] = 300.0
    max_ejected: Annotated[Percent, meta("Servers of the pool that may be out at a time, in percent.")] = 50
    penalty: Annotated[float, meta(
        "Seconds for which a failed request still counts as load of its server, so that a server that fails fast does not look "
        "like the least busy one; at least 20 times the pool's usual response time. 0: none.", ge=0, le=300
    )] = 1.0


class QueueConfig(Section, frozen=True):
    """Requests that wait while all servers are at `max_connections`, `[pools.NAME.queue]`. First come, first served,
    over all workers; a client that leaves leaves the queue."""

    size: Annotated[int, meta("Requests that may wait, over all workers; more get 503.", ge=1, le=4096)] = 100
    timeout: Annotated[Seconds, meta("Seconds after which a request that waits gets 503.")] = 5.0


class BreakerConfig(Section, frozen=True):
    """Limits of a whole pool, `[pools.NAME.breaker]`; requests above `in_flight` get 503 at once. The limit of one server is
    `max_connections`, that of waiting requests `queue.size`."""

    in_flight: Annotated[int, meta(
        "Requests in flight, over all servers and workers; 0: no limit.", ge=0, le=1_000_000
    )] = 0
    retries: Annotated[int, meta("Retries under way at a time, over all workers; 0: no limit.", ge=0, le=100_000)] = 0


class PoolConfig(Section, frozen=True):
    """A set of servers, `[pools.NAME]`."""

    servers: Annotated[tuple[ServerConfig, ...], meta("The servers.", min_length=1)]
    policy: Annotated[str, meta(
        'How a server is picked: the name of a policy, or "package.module:Class" for your own.'
    )] = "least-connections"
    mode: Annotated[Literal["proxy", "redirect"], meta(
        '"redirect": requests are not passed on; the client is sent to the `public` address of the server that is picked, '
        "see [redirecting.md](redirecting.md)."
    )] = "proxy"
    redirect_status: Annotated[Literal[301, 302, 307, 308], meta(
        "Status of such an answer. 301 and 302 let clients make a GET of a POST, 307 and 308 do not; 301 and 308 may be kept by "
        "the client, for a minute."
    )] = 302
    key: Annotated[str, meta(
        'What the policies `hash` and `consistent-hash` tell requests apart by: "source" (the client\'s address), "uri" (path '
        'and query), "path", "header:NAME", "cookie:NAME" or "query:NAME"; a class of one\'s own finds it as `request.key`.'
    )] = ""
    load_factor: Annotated[float, meta(
        "`consistent-hash`: the most requests in flight on a server, as a multiple of its share of all that are in flight, "
        "1 or more; beyond, its keys go to the next server. 0: no limit.", ge=0, le=1000
    )] = 1.25
    load: Annotated[Literal["connections", "peak-ewma", "least-time"], meta(
        "`power-of-two`: by what the two servers are compared: requests in flight, or the load of one of these policies."
    )] = "connections"
    compatible: Annotated[Literal["", "nginx", "nginx-ketama"], meta(
        'Pick the servers that nginx picks for the same keys: "nginx" for `hash` (its `hash KEY`), "nginx-ketama" for '
        "`consistent-hash` (its `hash KEY consistent`, without `load_factor`)."
    )] = ""
    tls: TLSConfig | None = None
    slow_start: Annotated[float, meta(
        "Seconds over which the share of a server that has come up, or was added, grows from a tenth to its weight; 0: none.",
        ge=0, le=86400
    )] = 0.0
    panic_threshold: Annotated[Percent, meta(
        "When less than this share of the servers is up by checks, in percent, all servers are used. With so many down, either "
        "the checks are wrong, or the rest would be overloaded and fail too. 0: never."
    )] = 50
    retries: RetriesConfig = field(default_factory=RetriesConfig)
    ejection: EjectionConfig = field(default_factory=EjectionConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    queue: QueueConfig | None = None
    health: HealthConfig | None = None
    sticky: StickyConfig | None = None


class RouteConfig(Section, frozen=True):
    """Which requests a pool gets, `[[routes]]`. The most specific one wins: host, then the longest path."""

    pool: Annotated[str, meta("Name of the pool.")]
    hosts: Annotated[tuple[str, ...], meta(
        'Host names, or "*.example.org" for all below one; none: any host.'
    )] = ()
    paths: Annotated[tuple[str, ...], meta("Prefixes of the path; none: any path.")] = ()


class StateConfig(Section, frozen=True):
    """The state file: it keeps administrative states and weights set by command over a restart."""

    file: Annotated[str, meta("Path of the file; its folder must exist and be writable. None: nothing is kept.")] = ""
    max_age: Annotated[Seconds, meta("Seconds after which the file is too old and is ignored.")] = 3600.0


class Config(Section, frozen=True):
    """A whole configuration."""

    pools: Annotated[dict[str, PoolConfig], meta("The pools by name.", min_length=1)]
    listen: ListenConfig = field(default_factory=ListenConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    admin: AdminConfig | None = None
    log: LogConfig = field(default_factory=LogConfig)
    routes: tuple[RouteConfig, ...] = ()
    state: StateConfig = field(default_factory=StateConfig)
    source: str = ""
