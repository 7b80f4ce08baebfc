"""What a route may say, and what two of them may not."""
from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from prefork_lb.config.access_rules import check_access
from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.names import HOST, PARAMETER
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.positions import Path
from prefork_lb.config.route_actions import check_actions
from prefork_lb.config.routes import RouteConfig
from prefork_lb.config.serving_rules import check_serving
from prefork_lb.errors import shown
from prefork_lb.net.networks import lies_in
from prefork_lb.routing.conditions import rank
from prefork_lb.routing.path import compared
from prefork_lb.routing.pattern import compile_pattern
from prefork_lb.wire import grammar

_PATH = re.compile(r"/[\x21-\x7e]*")
_KEY = re.compile(rf"source|path|(?:header|cookie):{grammar.TOKEN.decode()}|query:{PARAMETER.pattern}")


def check_routes(routes: Sequence[RouteConfig | None], pools: Mapping[str, PoolConfig | None], report: ReportProblem) -> None:
    """Report what is wrong with the routes. Values that were reported before stand as None in them and are passed over."""
    for index, route in enumerate(routes):
        if route is not None:
            _check(index, route, pools, report)
    whole = {index: route for index, route in enumerate(routes) if route is not None and _is_whole(route)}
    for first, second, where in _pairs(whole):
        if rank(whole[first]) == rank(whole[second]):
            report(("routes", second), f"asks for the same as routes[{first}] at {where}: one of the two would never be used")


def overlaps(routes: Sequence[RouteConfig]) -> list[tuple[int, str]]:
    """Pairs of routes of which none is the more specific one: the number of the one that a request which meets both does not get,
    and the matter in words."""
    found = []
    for first, second, where in _pairs(dict(enumerate(routes))):
        ranks = rank(routes[first]), rank(routes[second])
        if ranks[0][0] == ranks[1][0] and not _exclude_each_other(routes[first], routes[second]):
            winner, other = (first, second) if ranks[0] < ranks[1] else (second, first)
            found.append((other, f"asks for as much as routes[{winner}] at {where}: a request that meets both goes by "
                                 f"routes[{winner}]"))
    return found


def _pairs(routes: Mapping[int, RouteConfig]) -> Iterator[tuple[int, int, str]]:
    """Each two routes that have a host and a path in common, with these in words."""
    seen: dict[tuple[str, str], list[int]] = {}
    told: set[tuple[int, int]] = set()
    for index, route in routes.items():
        for host in route.hosts or ("",):
            for path in route.paths or ("",):
                place = seen.setdefault((host.lower().removesuffix("."), path), [])
                for other in place:
                    if other != index and (other, index) not in told:
                        told.add((other, index))
                        yield other, index, f"{host or 'any host'}, {path or 'any path'}"
                place.append(index)


def _exclude_each_other(one: RouteConfig, two: RouteConfig) -> bool:
    """Whether their methods already show that no request meets both."""
    return bool(one.methods and two.methods and not set(one.methods) & set(two.methods))


def _is_whole(route: RouteConfig) -> bool:
    """Whether nothing that routes are compared by was reported."""
    lists, tables = (route.hosts, route.paths, route.methods, route.clients), (route.fields, route.cookies, route.query)
    if None in (*lists, *tables, route.scheme):
        return False
    return None not in (*itertools.chain(*lists), *itertools.chain.from_iterable(table.values() for table in tables))


def _check(index: int, route: RouteConfig, pools: Mapping[str, PoolConfig | None], report: ReportProblem) -> None:
    place = ("routes", index)
    _answered_by(route, place, report)
    check_actions(route, place, report)
    check_serving(route, place, pools, report)
    check_access(route, place, report)
    for number, host in enumerate(route.hosts or ()):
        if host is not None and not HOST.fullmatch(host):
            report((*place, "hosts", number), f'{shown(host)} is no host; expected a name without port, or "*." and a name')
    for number, path in enumerate(route.paths or ()):
        if path is not None:
            problem = _path_problem(path)
            if problem:
                report((*place, "paths", number), problem)
    for number, method in enumerate(route.methods or ()):
        if method is not None and (not grammar.token.fullmatch(method.encode()) or method != method.upper()):
            report((*place, "methods", number), f"{shown(method)} is no method; expected one like GET, in capitals")
    for key, is_name, noun in (("fields", _is_token, "header field"), ("cookies", _is_token, "cookie"),
                               ("query", _is_parameter, "parameter")):
        for name, value in (getattr(route, key) or {}).items():
            if not is_name(name):
                report((*place, key, name), f"{shown(name)} is no name of a {noun}")
            if value is not None and value.startswith("~"):
                _pattern(value, (*place, key, name), report)
    for name, limit in (("rate", route.rate), ("concurrency", route.concurrency)):
        if limit is not None and limit.key is not None and not _KEY.fullmatch(limit.key):
            report((*place, name, "key"), f'{shown(limit.key)} is no key; expected one of "source", "path", "header:NAME", '
                   '"cookie:NAME", "query:NAME"')
    for key in ("clients", "allow", "deny"):
        for number, network in enumerate(getattr(route, key) or ()):
            try:
                lies_in(["::" if network is None else network])
            except ValueError:
                report((*place, key, number), f"{shown(network)} is neither an address nor a network such as 10.0.0.0/8")


def _answered_by(route: RouteConfig, place: Path, report: ReportProblem) -> None:
    if None in (route.pool, route.redirect):
        return
    answers = [key for key in ("pool", "split", "redirect", "respond") if getattr(route, key)]
    if not answers:
        report((*place, "pool"), "missing; a route has a pool, a split, a redirect or a respond")
    elif len(answers) > 1:
        report((*place, answers[1]), f"the route has a {answers[0]} already; expected one of pool, split, redirect and respond")


def _path_problem(path: str) -> str:
    """Why a route cannot have this path; empty: it can."""
    if path.startswith("~"):
        try:
            compile_pattern(path[1:])
        except ValueError as exc:
            return str(exc)
        return ""
    bare = path.removeprefix("=")
    if not _PATH.fullmatch(bare) or "?" in bare or "#" in bare:
        return (f'{shown(path)} is no path; expected / and printable ASCII without ? and #, "=" and such a path, or "~" and a '
                "pattern")
    normal = compared(bare.encode()).path.decode()
    if normal != bare:
        return f"{shown(path)} is never found, for paths are compared in their normal form; expected {shown(normal)}"
    return ""


def _pattern(value: str, place: Path, report: ReportProblem) -> None:
    try:
        compile_pattern(value[1:])
    except ValueError as exc:
        report(place, str(exc))


def _is_token(name: str) -> bool:
    return grammar.token.fullmatch(name.encode()) is not None


def _is_parameter(name: str) -> bool:
    return PARAMETER.fullmatch(name) is not None
