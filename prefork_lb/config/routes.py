"""Which requests go where, `[[routes]]`, and what becomes of them on the way. See `config.model`."""
from __future__ import annotations

from typing import Annotated, Literal

from msgspec import field

from prefork_lb.config.access import BasicAuthConfig, ForwardAuthConfig
from prefork_lb.config.filters import FILTERS_DOC, FilterConfig
from prefork_lb.config.section import Section, meta

_VALUES = 'A value is compared as it came; "*": any value; "~" and a regular expression (RE2) that is somewhere in it.'


class FieldChangesConfig(Section, frozen=True):
    """Changes of the fields of a head, `request` and `response` of a route. Values may hold `{client}`, `{host}`, `{path}`,
    `{query}`, `{rest}`, `{scheme}` and `{method}` of the request, and `{tls_subject}` and `{tls_fingerprint}` of the client's
    certificate."""

    set: Annotated[dict[str, str], meta("Fields to write in the place of those of the same name.")] = field(default_factory=dict)
    add: Annotated[dict[str, str], meta("Fields to write beside those of the same name.")] = field(default_factory=dict)
    remove: Annotated[tuple[str, ...], meta("Names of fields to take out.")] = ()


class RespondConfig(Section, frozen=True):
    """An answer of the route's own, `respond`: no server is asked."""

    status: Annotated[int, meta("Its status.", ge=200, le=599)] = 200
    body: Annotated[str, meta("Its content.")] = ""
    file: Annotated[str, meta("A file with its content, at most 1 MiB, read at the start and at a reload.")] = ""
    folder: Annotated[str, meta(
        "A folder with files: the rest of the path names one of them, which is read for each request; others get 404. For "
        "`/.well-known/acme-challenge/`."
    )] = ""
    type: Annotated[str, meta("Its Content-Type.")] = "text/plain; charset=utf-8"
    fields: Annotated[dict[str, str], meta("Further header fields.")] = field(default_factory=dict)


class RateConfig(Section, frozen=True):
    """A limit of the requests a second, `rate` of a route, exact over all workers; what is above gets 429."""

    per_second: Annotated[float, meta("Requests a second in the long run.", gt=0, le=1_000_000)]
    key: Annotated[str, meta(
        'What is limited: each "source" (the client\'s address; of IPv6 its /64), "path", "header:NAME", "cookie:NAME" or '
        '"query:NAME". A request without such a value is not limited.'
    )] = "source"
    burst: Annotated[int, meta("Requests that may come at once.", ge=1, le=1_000_000)] = 1


class MirrorConfig(Section, frozen=True):
    """Copies of requests to another pool, `mirror` of a route, whose answers are dropped. Requests with a body are copied when it
    has up to 64 KiB and is received whole before a server is claimed (`proxy.buffers`)."""

    pool: Annotated[str, meta("Name of the pool that gets the copies.")]
    share: Annotated[float, meta("The share of the requests that are copied.", gt=0, le=1)] = 1.0


class ConcurrencyConfig(Section, frozen=True):
    """A limit of the requests that are in flight at once, `concurrency` of a route, exact over all workers; what is above gets
    429. A request is in flight until the client has the whole answer."""

    limit: Annotated[int, meta("Requests in flight of each key.", ge=1, le=1_000_000)]
    key: Annotated[str, meta("What is limited, as of `rate`.")] = "source"


class BandwidthConfig(Section, frozen=True):
    """A limit of the bytes a second of each response, `bandwidth` of a route. Tunnels and the balancer's own answers are not
    limited. gunicorn's sync workers cannot keep it and do not start with it."""

    per_second: Annotated[int, meta("Bytes of the body a second.", ge=1024, le=1 << 40)]
    after: Annotated[int, meta("Bytes of each body that come at full speed first.", ge=0, le=1 << 40)] = 0


class RouteTimeoutsConfig(Section, frozen=True):
    """Timeouts toward servers, `timeouts` of a route; 0: as in `[proxy.timeouts]`."""

    connect: Annotated[float, meta("Seconds until a server has accepted a connection.", ge=0, le=86400)] = 0.0
    response: Annotated[float, meta("Seconds from the request until the head of the response.", ge=0, le=86400)] = 0.0
    idle: Annotated[float, meta(
        "Seconds between two reads, or writes, of a body, on the server's side; in a tunnel, of silence on both sides.", ge=0,
        le=86400
    )] = 0.0


class CorsConfig(Section, frozen=True):
    """Which pages of other origins may use a route, `cors` of a route (CORS, of the Fetch standard). The balancer answers
    preflight requests; what servers say of it is taken out."""

    origins: Annotated[tuple[str, ...], meta(
        'Origins: "https://www.example.org", "https://*.example.org" for all below a name, "*" for all.'
    )]
    methods: Annotated[tuple[str, ...], meta("Methods that such a page may use.")] = ("GET", "HEAD", "POST")
    fields: Annotated[tuple[str, ...], meta("Names of request fields that it may set, besides those that every page may.")] = ()
    exposed: Annotated[tuple[str, ...], meta("Names of response fields that it may read, likewise.")] = ()
    credentials: Annotated[bool, meta("Browsers send cookies and credentials along.")] = False
    max_age: Annotated[int, meta("Seconds for which a browser remembers the answer to a preflight.", ge=0, le=86400)] = 600


class HttpsConfig(Section, frozen=True):
    """A route for https alone, `https` of a route: requests over http are redirected with 308, and browsers are told to come by
    https (HSTS, RFC 6797)."""

    hsts: Annotated[int, meta(
        "Seconds for which browsers shall use https alone; 0: they forget it.", ge=0, le=10 * 365 * 86400
    )] = 31_536_000
    subdomains: Annotated[bool, meta("For all hosts below this one, too.")] = False


class RouteConfig(Section, frozen=True):
    """Which requests go where, `[[routes]]`; the most specific route wins, see [routing.md](routing.md). A route has a `pool`, a
    `split`, a `redirect` or a `respond`."""

    pool: Annotated[str, meta("Name of the pool that answers.")] = ""
    split: Annotated[dict[str, Annotated[int, meta("", ge=0, le=1_000_000)]], meta(
        "Names of several pools instead, each with the weight of its share of the requests: `{ stable = 95, canary = 5 }`. A "
        "pool with the weight 0 gets none."
    )] = field(default_factory=dict)
    split_cookie: Annotated[str, meta(
        "Name of a cookie by which a client stays with the pool of its first request; none: each request is split anew."
    )] = ""
    failover: Annotated[str, meta(
        "Name of the pool that answers while `pool`, or the one that the split gives, has no usable server."
    )] = ""
    mirror: MirrorConfig | None = None
    timeouts: RouteTimeoutsConfig | None = None
    cors: CorsConfig | None = None
    https: HttpsConfig | None = None
    error_pages: Annotated[dict[str, str], meta(
        'Files in the place of the balancer\'s own error pages, by status: `{ 502 = "/etc/prefork-lb/502.html", "500-599" = '
        '"/etc/prefork-lb/error.html" }`. A single status goes before a range. Read at the start and at a reload, at most 1 MiB; '
        "the type goes by the end of the name."
    )] = field(default_factory=dict)
    redirect: Annotated[str, meta(
        'Where the client is sent instead: "https://example.org/new/{rest}". May hold `{rest}` (what follows the prefix of '
        "`paths`, with the query), `{path}`, `{query}`, `{host}`, `{scheme}`, `{client}` and `{method}`."
    )] = ""
    redirect_status: Annotated[Literal[301, 302, 307, 308], meta("Status of such an answer.")] = 301
    respond: RespondConfig | None = None
    hosts: Annotated[tuple[str, ...], meta(
        'Host names, or "*.example.org" for all below one; none: any host.'
    )] = ()
    paths: Annotated[tuple[str, ...], meta(
        'Prefixes of the path, which end at the border of a segment: "/api" is for /api and /api/x, not for /apis. '
        '"=/robots.txt" is for this path alone, and "~\\.php$" for paths in which the regular expression (RE2) is found. None: '
        "any path."
    )] = ()
    scheme: Annotated[Literal["", "http", "https"], meta(
        "What the client speaks, to this host or to a trusted proxy in front; none: either."
    )] = ""
    methods: Annotated[tuple[str, ...], meta("Methods; none: any.")] = ()
    fields: Annotated[dict[str, str], meta("Header fields that the request must have, each with its value. " + _VALUES)] = field(
        default_factory=dict)
    cookies: Annotated[dict[str, str], meta("Cookies that it must have, likewise.")] = field(default_factory=dict)
    query: Annotated[dict[str, str], meta("Parameters of the query that it must have, likewise.")] = field(default_factory=dict)
    clients: Annotated[tuple[str, ...], meta(
        "Addresses and networks (CIDR) of clients; behind `proxy.trusted_proxies` as these tell them. None: any. Requests of "
        "other clients go to other routes; to refuse them there is `allow`."
    )] = ()
    allow: Annotated[tuple[str, ...], meta("Networks whose clients may use the route; the others get 403. None: all may.")] = ()
    deny: Annotated[tuple[str, ...], meta("Networks whose clients get 403, whatever `allow` says.")] = ()
    rate: RateConfig | None = None
    concurrency: ConcurrencyConfig | None = None
    bandwidth: BandwidthConfig | None = None
    client_certificate: Annotated[bool, meta(
        "Whether clients must have shown a certificate that the listener has verified (gunicorn's `--ca-certs` and "
        "`--cert-reqs 1`); the others get 403."
    )] = False
    basic_auth: BasicAuthConfig | None = None
    forward_auth: ForwardAuthConfig | None = None
    filters: Annotated[tuple[FilterConfig, ...], meta(FILTERS_DOC)] = ()
    path: Annotated[str, meta(
        'The target that a server gets in place of the request\'s: "/{rest}" strips the prefix of `paths`, "/app{path}{query}" '
        'adds one, "/v2/{rest}" replaces it. None: the request\'s.'
    )] = ""
    body_limit: Annotated[int, meta(
        "Bytes of a request's body; longer ones get 413: by their Content-Length before a server is claimed, chunked ones when "
        "they are that long. 0: no limit.", ge=0, le=1 << 40
    )] = 0
    request: Annotated[FieldChangesConfig | None, meta("Changes of the request's fields.")] = None
    response: Annotated[FieldChangesConfig | None, meta("Changes of the fields of a server's response.")] = None


def route_in_words(route: RouteConfig) -> str:
    """What a route asks for, in a line."""
    return "; ".join([", ".join(route.hosts) or "any host", ", ".join(route.paths) or "any path", *conditions_in_words(route)])


def route_number(route: RouteConfig) -> int:
    """A number that the route's conditions make, never 0: the same in every process, and as long as the conditions stay."""
    import hashlib  # OpenSSL comes with it: 1 MiB of a controller that has no such route

    return int.from_bytes(hashlib.blake2b(route_in_words(route).encode(), digest_size=8).digest()) >> 1 or 1


def conditions_in_words(route: RouteConfig) -> list[str]:
    """What it asks for besides host and path."""
    parts: list[str] = [route.scheme] if route.scheme else []
    if route.methods:
        parts.append(", ".join(route.methods))
    for noun, values in (("field", route.fields), ("cookie", route.cookies), ("parameter", route.query)):
        parts += [f"{noun} {name}" if value == "*" else f"{noun} {name}: {value}" for name, value in values.items()]
    if route.clients:
        parts.append(f"from {', '.join(route.clients)}")
    return parts


def answer_in_words(route: RouteConfig) -> str:
    """What answers a request that takes this route."""
    if route.redirect:
        return f"{route.redirect_status} to {route.redirect}"
    if route.respond is not None:
        return f"answer {route.respond.status}"
    pools = " or ".join(f"{pool} ({weight})" for pool, weight in route.split.items())
    failover = f", else {route.failover}" if route.failover else ""
    mirror = f", copies to {route.mirror.pool}" if route.mirror is not None else ""
    filters = f", filtered by {', '.join(each.use for each in route.filters)}" if route.filters else ""
    return f"pool {route.pool or pools}{failover}{mirror}{filters}"
