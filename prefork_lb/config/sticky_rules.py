"""What cannot work in `[pools.NAME.sticky]` and in the routes of servers."""
from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from prefork_lb.config.decode import ReportProblem, did_you_mean
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.secrets import read_secrets
from prefork_lb.config.sticky import DEFAULT_COOKIE, StickyConfig
from prefork_lb.wire import grammar

_MODES = ("cookie", "route", "learn", "source", "header:NAME")
# The keys that belong to some modes only. Those that are not here belong to all.
_KEYS = {
    "cookie": ("cookie", "secret_file", "path", "domain", "max_age", "idle", "http_only", "same_site", "secure"),
    "route": ("cookie", "parameter"),
    "learn": ("cookie", "header", "idle", "size"),
    "source": (),
    "header": (),
}
_OF_SOME = frozenset(key for keys in _KEYS.values() for key in keys)
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(StickyConfig)}
_ROUTE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PARAMETER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_sticky(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    """Report what cannot work in a pool's sessions."""
    sticky = pool.sticky
    _check_routes(name, pool, report)
    if sticky is None or sticky.mode is None:
        return
    path = ("pools", name, "sticky")
    kind, colon, field = sticky.mode.partition(":")
    if kind not in _KEYS or (kind == "header") != bool(colon):
        report((*path, "mode"), f"{sticky.mode!r} is no mode; expected one of {', '.join(_MODES)}{did_you_mean(kind, _KEYS)}")
        return
    if kind == "header" and not grammar.token.fullmatch(field.encode()):
        report((*path, "mode"), f"{sticky.mode!r}: {field!r} is no name of a header field")
    for key in _OF_SOME.difference(_KEYS[kind]):
        if getattr(sticky, key) not in (None, _DEFAULTS[key]):
            modes = " or ".join(f'"{mode}"' for mode, keys in _KEYS.items() if key in keys)
            report((*path, key), f'has no meaning in the mode "{sticky.mode}"; it belongs to {modes}')
    for key in ("cookie", "header"):
        value = getattr(sticky, key)
        if value and not grammar.token.fullmatch(value.encode()):
            report((*path, key), f"{value!r} is no name of a {'cookie' if key == 'cookie' else 'header field'}")
    if sticky.on_failure == "wait" and pool.queue is None:
        report((*path, "on_failure"), f'"wait" needs a queue to wait in; add [pools.{name}.queue]')
    _CHECKS[kind](name, pool, sticky, report)


def _check_routes(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    seen: dict[str, int] = {}
    for index, server in enumerate(pool.servers or ()):
        if server is None or not server.route:
            continue
        path = ("pools", name, "servers", index, "route")
        if not _ROUTE.fullmatch(server.route):
            report(path, f"{server.route!r} is no route; expected letters, digits, hyphens and underscores, at most 64")
        if server.route in seen:
            report(path, f"{server.route!r} is the route of servers[{seen[server.route]}] already")
        seen.setdefault(server.route, index)


def _check_cookie(name: str, pool: PoolConfig, sticky: StickyConfig, report: ReportProblem) -> None:
    path = ("pools", name, "sticky")
    if sticky.secret_file:
        try:
            read_secrets(sticky.secret_file)
        except ValueError as exc:
            report((*path, "secret_file"), str(exc))
    if sticky.same_site == "none" and sticky.secure == "never":
        report((*path, "same_site"), '"none" without Secure: browsers drop such a cookie; expected secure = "auto" or "always"')
    cookie = (sticky.cookie or "").lower()
    if cookie.startswith(("__host-", "__secure-")) and sticky.secure != "always":
        report((*path, "secure"), f'browsers take {sticky.cookie!r} only with Secure; expected secure = "always"')
    if cookie.startswith("__host-") and (sticky.domain or sticky.path != "/"):
        report((*path, "cookie"), f'browsers take {sticky.cookie!r} only without a domain and with path = "/"')


def _check_route(name: str, pool: PoolConfig, sticky: StickyConfig, report: ReportProblem) -> None:
    path = ("pools", name, "sticky")
    if sticky.cookie == "" and sticky.parameter == "":
        report(path, 'the mode "route" needs the name of the application\'s cookie or path parameter; '
               'expected cookie = "JSESSIONID", for example')
    if sticky.parameter and not _PARAMETER.fullmatch(sticky.parameter):
        report((*path, "parameter"), f"{sticky.parameter!r} is no name; expected letters, digits, hyphens and underscores")
    if not any(server is not None and server.route for server in pool.servers or ()):
        report(path, 'no server of the pool has a route; expected servers like { address = "10.0.0.1:8001", route = "a" }')


def _check_learn(name: str, pool: PoolConfig, sticky: StickyConfig, report: ReportProblem) -> None:
    if pool.mode == "redirect":
        report(("pools", name, "sticky", "mode"), '"learn" needs the answers of the servers, which go past a pool that redirects')
    if None not in (sticky.cookie, sticky.header) and bool(sticky.cookie) == bool(sticky.header):
        report(("pools", name, "sticky"), 'the mode "learn" needs the name of the application\'s cookie or of a header field; '
               f"{'one of the two' if sticky.cookie else 'expected'} cookie = \"sessionid\", for example")


def _check_keyed(name: str, pool: PoolConfig, sticky: StickyConfig, report: ReportProblem) -> None:
    if sticky.drain_timeout:
        report(("pools", name, "sticky", "drain_timeout"), f'has no meaning in the mode "{sticky.mode}": nothing tells its old '
               "sessions from new ones, so all leave a drained server at once")


_CHECKS = {"cookie": _check_cookie, "route": _check_route, "learn": _check_learn, "source": _check_keyed, "header": _check_keyed}


def check_cookies(pools: Mapping[str, PoolConfig], report: ReportProblem) -> None:
    """Report cookies of two pools that would overwrite each other in a browser (RFC 6265 5.3: name, domain and path)."""
    seen: dict[tuple[str, str, str], str] = {}
    for name, pool in pools.items():
        sticky = pool.sticky if pool is not None else None
        if sticky is None or sticky.mode != "cookie" or None in (sticky.cookie, sticky.domain, sticky.path):
            continue
        cookie = sticky.cookie or DEFAULT_COOKIE
        other = seen.setdefault((cookie, sticky.domain.lower().lstrip("."), sticky.path), name)
        if other != name:
            report(("pools", name, "sticky"), f"the cookie {cookie!r} of this pool and of {other!r} would overwrite each other; "
                   "give one of them another name (cookie) or path")
