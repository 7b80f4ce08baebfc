"""What holds for a request beside the choice of its server: each rule with its value in force, and the key that says so."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prefork_lb.config.filters import FilterConfig
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.routes import RouteConfig
from prefork_lb.proxy.attempt import Timeouts
from prefork_lb.routing.limit_keys import limit_key_finder
from prefork_lb.routing.serving import ServerTimeouts
from prefork_lb.routing.template import Facts


@dataclass(frozen=True, slots=True)
class RuleInForce:
    """One that holds for a request."""

    name: str
    value: str
    place: str  # its key in the configuration


def rules_of_route(route: RouteConfig, place: str, facts: Facts) -> list[RuleInForce]:
    """Those that a request meets on its route, in the order in which it meets them. `place` is the route's key."""
    return [RuleInForce(name, value, f"{place}.{name}") for name, in_words in _IN_WORDS if (value := in_words(route, facts))]


def rules_of_pool(pool: PoolConfig, name: str) -> list[RuleInForce]:
    """Those that hold since the pool of this name gets the request."""
    return [RuleInForce("filters", _names(pool.filters), f"pools.{name}.filters")] if pool.filters else []


def rules_toward_servers(timeouts: Timeouts, own: ServerTimeouts, place: str) -> list[RuleInForce]:
    """The timeouts in force; `own` are those of the route, whose key is `place`."""
    found = []
    for name in ("connect", "response", "idle"):
        where = place if getattr(own, name) else "proxy"
        found.append(RuleInForce(f"timeouts.{name}", f"{getattr(timeouts, name):g} s", f"{where}.timeouts.{name}"))
    return found


def _names(filters: Sequence[FilterConfig]) -> str:
    return ", ".join(each.use for each in filters)


def _not_limited(key: str, facts: Facts) -> str:
    return "" if limit_key_finder(key)(facts) else "; not this request, which has none"


def _rate(route: RouteConfig, facts: Facts) -> str:
    if (rate := route.rate) is None:
        return ""
    return f"{rate.per_second:g} a second and {rate.burst} at once of each {rate.key}{_not_limited(rate.key, facts)}"


def _concurrency(route: RouteConfig, facts: Facts) -> str:
    if (limit := route.concurrency) is None:
        return ""
    return f"{limit.limit} at once of each {limit.key}{_not_limited(limit.key, facts)}"


def _basic_auth(route: RouteConfig, facts: Facts) -> str:
    return f"users of {route.basic_auth.file}" if route.basic_auth is not None else ""


def _forward_auth(route: RouteConfig, facts: Facts) -> str:
    # Without the query, which may hold a password.
    return f"{route.forward_auth.url.partition('?')[0]} decides" if route.forward_auth is not None else ""


def _https(route: RouteConfig, facts: Facts) -> str:
    return f"https only, which browsers remember for {route.https.hsts} s" if route.https is not None else ""


def _cors(route: RouteConfig, facts: Facts) -> str:
    if (cors := route.cors) is None:
        return ""
    return f"pages of {', '.join(cors.origins)} by {', '.join(cors.methods)}{', with credentials' if cors.credentials else ''}"


def _mirror(route: RouteConfig, facts: Facts) -> str:
    return f"copies of {route.mirror.share * 100:g} % to the pool {route.mirror.pool}" if route.mirror is not None else ""


def _bandwidth(route: RouteConfig, facts: Facts) -> str:
    if (limit := route.bandwidth) is None:
        return ""
    return f"{limit.per_second} bytes a second{f' after {limit.after} bytes' if limit.after else ''}"


_IN_WORDS: Sequence[tuple[str, Callable[[RouteConfig, Facts], str]]] = (
    ("https", _https), ("cors", _cors),
    ("error_pages", lambda route, _: ", ".join(f"{status}: {file}" for status, file in route.error_pages.items())),
    ("allow", lambda route, _: ", ".join(route.allow)), ("deny", lambda route, _: ", ".join(route.deny)), ("rate", _rate),
    ("body_limit", lambda route, _: f"{route.body_limit} bytes" if route.body_limit else ""),
    ("client_certificate", lambda route, _: "the client has to show one" if route.client_certificate else ""),
    ("concurrency", _concurrency), ("basic_auth", _basic_auth), ("forward_auth", _forward_auth),
    ("filters", lambda route, _: _names(route.filters)),
    ("split", lambda route, _: ", ".join(f"{pool} {weight}" for pool, weight in route.split.items())),
    ("failover", lambda route, _: f"to the pool {route.failover}" if route.failover else ""), ("mirror", _mirror),
    ("bandwidth", _bandwidth),
)
"""The keys of a route that are rules, in the order in which a request meets them: each in words, empty where it is not set."""
