"""Which requests go where, `[[routes]]`. See `config.model`."""
from __future__ import annotations

from typing import Annotated

from msgspec import field

from prefork_lb.config.section import Section, meta

_VALUES = 'A value is compared as it came; "*": any value; "~" and a regular expression (RE2) that is somewhere in it.'


class RouteConfig(Section, frozen=True):
    """Which requests a pool gets, `[[routes]]`; the most specific route wins, see [routing.md](routing.md)."""

    pool: Annotated[str, meta("Name of the pool.")]
    hosts: Annotated[tuple[str, ...], meta(
        'Host names, or "*.example.org" for all below one; none: any host.'
    )] = ()
    paths: Annotated[tuple[str, ...], meta(
        'Prefixes of the path, which end at the border of a segment: "/api" is for /api and /api/x, not for /apis. '
        '"=/robots.txt" is for this path alone, and "~\\.php$" for paths in which the regular expression (RE2) is found. None: '
        "any path."
    )] = ()
    methods: Annotated[tuple[str, ...], meta("Methods; none: any.")] = ()
    fields: Annotated[dict[str, str], meta("Header fields that the request must have, each with its value. " + _VALUES)] = field(
        default_factory=dict)
    cookies: Annotated[dict[str, str], meta("Cookies that it must have, likewise.")] = field(default_factory=dict)
    query: Annotated[dict[str, str], meta("Parameters of the query that it must have, likewise.")] = field(default_factory=dict)
    clients: Annotated[tuple[str, ...], meta(
        "Addresses and networks (CIDR) of clients; behind `proxy.trusted_proxies` as these tell them. None: any."
    )] = ()


def route_in_words(route: RouteConfig) -> str:
    """What a route asks for, in a line."""
    return "; ".join([", ".join(route.hosts) or "any host", ", ".join(route.paths) or "any path", *conditions_in_words(route)])


def conditions_in_words(route: RouteConfig) -> list[str]:
    """What it asks for besides host and path."""
    parts = []
    if route.methods:
        parts.append(", ".join(route.methods))
    for noun, values in (("field", route.fields), ("cookie", route.cookies), ("parameter", route.query)):
        parts += [f"{noun} {name}" if value == "*" else f"{noun} {name}: {value}" for name, value in values.items()]
    if route.clients:
        parts.append(f"from {', '.join(route.clients)}")
    return parts
