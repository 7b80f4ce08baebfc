"""`[pools.NAME.sticky]`: how the requests of a session come to the same server."""
from __future__ import annotations

from typing import Annotated, Literal

from prefork_lb.config.section import Section, meta

YEAR_S = 366 * 86400
DEFAULT_COOKIE = "prefork_lb"
DEFAULT_LEARNED_IDLE_S = 3600.0


class StickyConfig(Section, frozen=True):
    """Sessions that stay with a server, `[pools.NAME.sticky]`; see [sessions.md](sessions.md). Each key but `mode`,
    `on_failure` and `drain_timeout` belongs to the modes that its text names; in another mode it is an error."""

    mode: Annotated[str, meta(
        'How a session is known: "cookie", by a signed cookie of the balancer; "route", the application\'s own cookie ends with '
        'the server\'s `route`; "learn", by a value that the server gives to the client; "source", by the client\'s address; '
        '"header:NAME", by a header field. The last two are consistent hashing: nothing is stored.'
    )] = "cookie"
    cookie: Annotated[str, meta(
        '`cookie`: the name of the balancer\'s cookie; none: "prefork_lb". `route` and `learn`: the application\'s own cookie.'
    )] = ""
    parameter: Annotated[str, meta(
        "`route`: the path parameter that ends with the route where there is no such cookie, as `jsessionid` in "
        "`/cart;jsessionid=ID.ROUTE`."
    )] = ""
    header: Annotated[str, meta(
        "`learn`: the header field, of responses and of requests, that has the session's value; instead of `cookie`."
    )] = ""
    secret_file: Annotated[str, meta(
        "`cookie`: the file of the secrets, one in each line, 16 characters or more. The first one signs, all verify: so a "
        "secret is replaced without the loss of a session. Hosts with the same file know each other's cookies. None: the "
        "instance makes a secret; sessions survive reloads and upgrades, and a restart forgets them."
    )] = ""
    path: Annotated[str, meta("`cookie`: its Path.", pattern=r"^/[\x21-\x3a\x3c-\x7e]*\Z")] = "/"
    domain: Annotated[str, meta(
        "`cookie`: its Domain; none: the host that the client asked alone.", pattern=r"^[A-Za-z0-9.-]*\Z", max_length=253
    )] = ""
    max_age: Annotated[float, meta(
        "`cookie`: seconds from its first issue after which a session ends, whatever it does. 0: never.", ge=0, le=YEAR_S
    )] = 0.0
    idle: Annotated[float, meta(
        "`cookie`, `learn`: seconds without a request after which a session ends. 0: never for `cookie`, "
        f"{DEFAULT_LEARNED_IDLE_S:g} for `learn`.", ge=0, le=YEAR_S
    )] = 0.0
    http_only: Annotated[bool, meta("`cookie`: HttpOnly: no script of a page sees it.")] = True
    same_site: Annotated[Literal["lax", "strict", "none"], meta("`cookie`: its SameSite.")] = "lax"
    secure: Annotated[Literal["auto", "always", "never"], meta(
        "`cookie`: Secure; `auto`: when the client speaks https, to this host or to a trusted proxy in front."
    )] = "auto"
    size: Annotated[int, meta(
        "`learn`: sessions that are remembered at most, over all workers. Beyond, the one that was not used for longest is "
        "forgotten. The room is made at the start.", ge=1, le=10_000_000
    )] = 100_000
    on_failure: Annotated[Literal["rebalance", "strict", "wait"], meta(
        "When the session's server is down, ejected or full: `rebalance`: another one is picked, and the session stays with "
        "that; `strict`: 503; `wait`: the request waits for that server as long as the pool's queue allows, which it needs."
    )] = "rebalance"
    drain_timeout: Annotated[float, meta(
        "Seconds for which a drained server keeps its sessions; then they go to others. 0: until it is readied, or taken out.",
        ge=0, le=YEAR_S
    )] = 0.0
