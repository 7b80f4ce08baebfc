"""What a type cannot say: rules on single texts, and between keys."""
from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from prefork_lb.balance.registry import POLICY_NAMES
from prefork_lb.config.decode import Report, did_you_mean
from prefork_lb.config.model import Config, Pool, Route
from prefork_lb.net.address import parse_address

_HOST = re.compile(r"(?:\*\.)?(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\]")
_POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check(config: Config, report: Report) -> None:
    """Report everything about a decoded configuration that cannot work.

    Values that were reported before stand as None in it and are passed over.
    """
    for index, bind in enumerate(config.listen.bind or () if config.listen else ()):
        _address(bind, ("listen", "bind", index), report)
    if config.admin:
        _address(config.admin.bind, ("admin", "bind"), report)
    for index, network in enumerate(config.proxy.trusted_proxies or () if config.proxy else ()):
        try:
            ipaddress.ip_network(network or "::", strict=False)
        except ValueError:
            report(("proxy", "trusted_proxies", index), f"{network!r} is neither an address nor a network such as 10.0.0.0/8")
    pools = config.pools or {}
    for name, pool in pools.items():
        if pool is not None:
            _pool(name, pool, report)
    for index, route in enumerate(config.routes or ()):
        if route is not None:
            _route(index, route, pools, report)
    if len(pools) > 1 and config.routes == ():
        report(("pools",), f"{len(pools)} pools and no [[routes]] that say which requests each gets")


def _pool(name: str, pool: Pool, report: Report) -> None:
    if not _POOL_NAME.fullmatch(name):
        report(("pools", name), f"{name!r} is no name; expected letters, digits, hyphens, dots and underscores, at most 63")
    if pool.policy is not None and pool.policy not in POLICY_NAMES and not _CLASS.fullmatch(pool.policy):
        report(("pools", name, "policy"), f'{pool.policy!r} is no policy; expected one of {", ".join(POLICY_NAMES)}, '
               f'or "package.module:Class"{did_you_mean(pool.policy, POLICY_NAMES)}')
    seen: dict[str, int] = {}
    servers = pool.servers or ()
    for index, server in enumerate(servers):
        path = ("pools", name, "servers", index)
        if server is None or not _address(server.address, path, report):
            continue
        address = str(parse_address(server.address))
        if address in seen:
            report(path, f"{server.address!r} is the same server as servers[{seen[address]}]; "
                   "give one of them the sum of the weights")
        seen.setdefault(address, index)
    if servers and all(server is not None and server.backup for server in servers):
        report(("pools", name, "servers"), "every server is a backup; at least one must not be")


def _route(index: int, route: Route, pools: Mapping[str, Pool], report: Report) -> None:
    path = ("routes", index)
    if route.pool is not None and route.pool not in pools:
        report((*path, "pool"), f"there is no pool {route.pool!r}; expected one of {', '.join(pools)}"
               f"{did_you_mean(route.pool, pools)}")
    for number, host in enumerate(route.hosts or ()):
        if host is not None and not _HOST.fullmatch(host):
            report((*path, "hosts", number), f'{host!r} is no host; expected a name without port, or "*." and a name')
    for number, prefix in enumerate(route.paths or ()):
        if prefix is not None and not re.fullmatch(r"/[\x21-\x7e]*", prefix):
            report((*path, "paths", number), f"{prefix!r} is no path; expected / and printable ASCII")


def _address(text: str | None, path: tuple[str | int, ...], report: Report) -> bool:
    if text is None:
        return False
    try:
        parse_address(text)
    except ValueError as exc:
        report(path, str(exc))
        return False
    return True
