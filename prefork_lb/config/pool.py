"""A pool as values, `[pools.NAME]`: its servers, and when and how they are used. See `config.model`."""
from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from prefork_lb.config.discovery import DiscoveryConfig
from prefork_lb.config.filters import FILTERS_DOC, FilterConfig
from prefork_lb.config.scaling import ScalingConfig
from prefork_lb.config.section import MIB, Seconds, Section, meta
from prefork_lb.config.sticky import StickyConfig


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

    servers: Annotated[tuple[ServerConfig, ...], meta(
        "The servers; a pool with `discovery` or `scaling` needs none here."
    )] = ()
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
    filters: Annotated[tuple[FilterConfig, ...], meta(FILTERS_DOC)] = ()
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
    scaling: ScalingConfig | None = None
    discovery: DiscoveryConfig | None = None

    @property
    def may_be_empty(self) -> bool:
        """Whether servers come and go, so that there may be none for a while."""
        return self.discovery is not None or self.scaling is not None
