"""What a route may say of the pools that serve it."""
from __future__ import annotations

import re
from collections.abc import Mapping

from prefork_lb.config.decode import ReportProblem, did_you_mean
from prefork_lb.config.names import POOL
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.positions import Path
from prefork_lb.config.route_actions import check_file
from prefork_lb.config.routes import CorsConfig, RouteConfig
from prefork_lb.config.statuses import parse_statuses
from prefork_lb.errors import shown
from prefork_lb.wire import grammar

_ORIGIN = re.compile(r"\*|https?://(?:\*\.)?(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")

Pools = Mapping[str, PoolConfig | None]


def check_serving(route: RouteConfig, place: Path, pools: Pools, report: ReportProblem) -> None:
    """Report what is wrong with the pools of a route. Values that were reported before stand as None and are passed over."""
    if route.pool:
        _pool(route.pool, (*place, "pool"), pools, report)
    for name in route.split or ():
        _pool(name, (*place, "split", name), pools, report)
    weights = (route.split or {}).values()
    if weights and None not in weights and not any(weights):
        report((*place, "split"), "every pool has the weight 0; at least one must have more")
    if route.split_cookie:
        if route.split == {}:
            report((*place, "split_cookie"), "has no meaning without split")
        if not grammar.token.fullmatch(route.split_cookie.encode()):
            report((*place, "split_cookie"), f"{shown(route.split_cookie)} is no name of a cookie")
        for name, pool in pools.items():
            if pool is not None and pool.sticky is not None and pool.sticky.cookie == route.split_cookie:
                report((*place, "split_cookie"), f"is the cookie of sticky of the pool {name}; expected another name")
    if route.failover:
        _failover(route, place, pools, report)
    if route.mirror is not None and route.mirror.pool is not None:
        _pool(route.mirror.pool, (*place, "mirror", "pool"), pools, report)
        _passes_on(route, "mirror", route.mirror.pool, place, pools, report)
    if route.timeouts is not None and route.pool == "" and route.split == {}:
        report((*place, "timeouts"), "has no meaning without pool or split")
    _by_redirects(route, place, pools, report)
    if route.cors is not None:
        _cors(route.cors, (*place, "cors"), report)
    if route.https is not None and route.scheme == "http":
        report((*place, "https"), 'has no meaning with scheme = "http": no request over https takes the route')
    for key, file in (route.error_pages or {}).items():
        try:
            parse_statuses([key], 400)
        except ValueError as exc:
            report((*place, "error_pages", key), str(exc))
        if file is not None:
            check_file(file, (*place, "error_pages", key), report)


def _cors(cors: CorsConfig, place: Path, report: ReportProblem) -> None:
    for number, origin in enumerate(cors.origins or ()):
        if origin is not None and not _ORIGIN.fullmatch(origin):
            report((*place, "origins", number), f'{shown(origin)} is no origin; expected one like "https://www.example.org" or '
                   '"https://*.example.org", in lower case and without a path, or "*"')
    if cors.origins == ():
        report((*place, "origins"), "empty; no page could use the route")
    if cors.credentials and "*" in (cors.origins or ()):
        report((*place, "credentials"), 'browsers send none to a site that lets in "*"; name the origins')
    for key in ("methods", "fields", "exposed"):
        for number, name in enumerate(getattr(cors, key) or ()):
            if name is not None and not grammar.token.fullmatch(name.encode()):
                report((*place, key, number), f"{shown(name)} is no name of a {'method' if key == 'methods' else 'field'}")


def _failover(route: RouteConfig, place: Path, pools: Pools, report: ReportProblem) -> None:
    _pool(route.failover, (*place, "failover"), pools, report)
    if route.failover == route.pool:
        report((*place, "failover"), "is the route's own pool; expected another one")
    _passes_on(route, "failover", route.failover, place, pools, report)


def _passes_on(route: RouteConfig, key: str, other: str, place: Path, pools: Pools, report: ReportProblem) -> None:
    """Report a key that names another pool where not all pools of the route pass requests on."""
    if route.pool == "" and route.split == {}:
        report((*place, key), "has no meaning without pool or split")
    for name in (route.pool, *(route.split or ()), other):
        pool = pools.get(name or "")
        if pool is not None and pool.mode == "redirect":
            report((*place, key), f'the pool {name} has mode = "redirect", which has no {key}')


def _by_redirects(route: RouteConfig, place: Path, pools: Pools, report: ReportProblem) -> None:
    """Report what only requests to servers have, when every pool of the route sends clients elsewhere."""
    named = [pools.get(name) for name in (route.pool, *(route.split or ())) if name]
    if named and all(pool is not None and pool.mode == "redirect" for pool in named):
        for key in ("request", "bandwidth", "timeouts"):
            if getattr(route, key):
                report((*place, key), 'has no meaning with mode = "redirect" in the pool: clients ask the servers themselves; '
                       "leave it out")


def _pool(name: str, place: Path, pools: Pools, report: ReportProblem) -> None:
    if name not in pools:
        report(place, f"there is no pool {shown(name)}; expected one of {', '.join(filter(POOL.fullmatch, pools))}"
               f"{did_you_mean(name, pools)}")
