"""What a type cannot say: rules on single texts, and between keys."""
from __future__ import annotations

import re

from prefork_lb.balance.registry import KEYED_POLICIES, POLICY_NAMES
from prefork_lb.config.admin_rules import check_admin
from prefork_lb.config.cluster_rules import check_cluster
from prefork_lb.config.decode import ReportProblem, did_you_mean
from prefork_lb.config.discovery_rules import check_discovery
from prefork_lb.config.filter_rules import check_filters, check_pools_of_filters
from prefork_lb.config.log_rules import check_log
from prefork_lb.config.metrics_rules import check_metrics
from prefork_lb.config.model import CertificateConfig, Config
from prefork_lb.config.names import CLASS, HOST, PARAMETER, POOL
from prefork_lb.config.pool import HealthConfig, PoolConfig
from prefork_lb.config.redirect_rules import check_redirecting
from prefork_lb.config.route_rules import check_routes
from prefork_lb.config.scaling_rules import check_scaling
from prefork_lb.config.statuses import parse_statuses
from prefork_lb.config.sticky_rules import check_cookies, check_sticky
from prefork_lb.config.tracing_rules import check_tracing
from prefork_lb.errors import shown
from prefork_lb.net.address import is_server_name, parse_address
from prefork_lb.net.networks import lies_in
from prefork_lb.net.tls import check_pair, upstream_context
from prefork_lb.wire import grammar


def validate(config: Config, report: ReportProblem) -> None:
    """Report everything about a decoded configuration that cannot work.

    Values that were reported before stand as None in it and are passed over.
    """
    for index, bind in enumerate(config.listen.bind or () if config.listen else ()):
        _own_address(bind, ("listen", "bind", index), report)
    if config.listen:
        _listen(config, report)
    if config.log:
        check_log(config.log, report)
    if config.tracing:
        check_tracing(config.tracing, report)
    if config.metrics:
        check_metrics(config.metrics, report)
    if config.admin:
        if _own_address(config.admin.bind, ("admin", "bind"), report):
            check_admin(config.admin, config.pools or {}, report)
    for index, network in enumerate(config.proxy.trusted_proxies or () if config.proxy else ()):
        try:
            lies_in(["::" if network is None else network])
        except ValueError:
            report(("proxy", "trusted_proxies", index),
                   f"{shown(network)} is neither an address nor a network such as 10.0.0.0/8")
    if config.cluster:
        check_cluster(config.cluster, report)
    pools = config.pools or {}
    for name, pool in pools.items():
        if pool is not None:
            _pool(name, pool, report)
    check_cookies(pools, report)
    check_scaling(pools, report)
    check_routes(config.routes or (), pools, report)
    check_pools_of_filters(config.routes or (), pools, report)
    if len(pools) > 1 and config.routes == ():
        report(("pools",), f"{len(pools)} pools and no [[routes]] that say which requests each gets")


def _listen(config: Config, report: ReportProblem) -> None:
    listen = config.listen
    if listen.proxy_protocol and config.proxy is not None and config.proxy.trusted_proxies == ():
        report(("listen", "proxy_protocol"), "nobody is believed; name the proxies in front in proxy.trusted_proxies")
    seen: dict[str, int] = {}
    for index, bind in enumerate(listen.bind or ()):
        if bind in seen:
            report(("listen", "bind", index), f"{shown(bind)} is there already")
        seen.setdefault(bind, index)
    for index, entry in enumerate(listen.certificates or ()):
        if entry is not None:
            _certificate(index, entry, report)


def _certificate(index: int, entry: CertificateConfig, report: ReportProblem) -> None:
    path = ("listen", "certificates", index)
    if None not in (entry.certificate, entry.key):
        _pair(entry.certificate, entry.key, (*path, "certificate"), report)
    for number, host in enumerate(entry.hosts or ()):
        if host is not None and (not HOST.fullmatch(host) or host.startswith("[")):
            report((*path, "hosts", number), f'{shown(host)} is no host; expected a name, or "*." and a name')
    if index and entry.hosts == ():
        report((*path, "hosts"), "missing; only the first certificate is for all other names")


def _pair(certificate: str, key: str, path: tuple[str | int, ...], report: ReportProblem) -> None:
    try:
        check_pair(certificate, key)
    except ValueError as exc:
        report(path, str(exc))


def _tls(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    tls, path = pool.tls, ("pools", name, "tls")
    if tls is None or None in (tls.verify, tls.ca_file, tls.certificate, tls.key):
        return
    servers = [server.address or "" for server in pool.servers or () if server is not None]
    if not pool.may_be_empty and not any(address.lower().startswith("https://") for address in servers):
        report(path, "no server of the pool has TLS; expected addresses like https://10.0.0.1:8443")
    if tls.server_name and not is_server_name(tls.server_name):
        report((*path, "server_name"), f"{shown(tls.server_name)} is no name of a server; expected a host name or an IP address")
    if tls.key and not tls.certificate:
        report((*path, "key"), "a key without a certificate")
    if tls.certificate:
        _pair(tls.certificate, tls.key, (*path, "certificate"), report)
    try:
        upstream_context(tls.verify, tls.ca_file)
    except ValueError as exc:
        report((*path, "ca_file"), str(exc))


def _pool(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    if not POOL.fullmatch(name):
        report(("pools", name), f"{shown(name)} is no name; expected letters, digits, hyphens, dots and underscores, at most 63")
    if pool.policy is not None and pool.policy not in POLICY_NAMES and not CLASS.fullmatch(pool.policy):
        report(("pools", name, "policy"), f'{shown(pool.policy)} is no policy; expected one of {", ".join(POLICY_NAMES)}, '
               f'or "package.module:Class"{did_you_mean(pool.policy, POLICY_NAMES)}')
    _key(name, pool, report)
    seen: dict[str, int] = {}
    servers = pool.servers or ()
    for index, server in enumerate(servers):
        path = ("pools", name, "servers", index)
        if server is None or not _address(server.address, path, report):
            continue
        address = str(parse_address(server.address))
        if address in seen:
            report(path, f"{shown(server.address)} is the same server as servers[{seen[address]}]; "
                   "give one of them the sum of the weights")
        seen.setdefault(address, index)
    _tls(name, pool, report)
    _failures(name, pool, report)
    check_sticky(name, pool, report)
    check_redirecting(name, pool, report)
    check_discovery(name, pool, report)
    check_filters(pool.filters, ("pools", name, "filters"), report)
    if servers and all(server is not None and server.backup for server in servers):
        report(("pools", name, "servers"), "every server is a backup; at least one must not be")


_KEYS = "source", "uri", "path"
_NOUNS = {"header": "header field", "cookie": "cookie", "query": "parameter"}
_DEFAULT_LOAD_FACTOR = PoolConfig(servers=()).load_factor
_COMPATIBLE = {"nginx": "hash", "nginx-ketama": "consistent-hash"}


def _key(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    path, key, policy = ("pools", name), pool.key, pool.policy
    if key:
        kind, colon, rest = key.partition(":")
        if key not in _KEYS and not (colon and kind in _NOUNS):
            report((*path, "key"), f'{key!r} is no key; expected one of "source", "uri", "path", "header:NAME", "cookie:NAME", '
                   f'"query:NAME"{did_you_mean(kind, (*_KEYS, *_NOUNS))}')
        elif colon and not (PARAMETER.fullmatch(rest) if kind == "query" else grammar.token.fullmatch(rest.encode())):
            report((*path, "key"), f"{key!r}: {rest!r} is no name of a {_NOUNS[kind]}")
        elif policy in POLICY_NAMES and policy not in KEYED_POLICIES:
            report((*path, "key"), f'the policy {policy!r} has no use for a key; expected policy = "hash" or "consistent-hash"')
    elif key == "" and policy in KEYED_POLICIES:
        report((*path, "policy"), f'{policy!r} needs a key; expected one like key = "source"')
    if pool.load_factor is not None:
        if 0 < pool.load_factor < 1:
            report((*path, "load_factor"), f"{pool.load_factor:g} is less than the servers' share; expected 1 or more, or 0")
        elif pool.load_factor != _DEFAULT_LOAD_FACTOR and policy is not None and policy != "consistent-hash":
            report((*path, "load_factor"), f'the policy {policy!r} has no load factor; expected policy = "consistent-hash"')
        elif pool.compatible and pool.load_factor not in (0, _DEFAULT_LOAD_FACTOR):
            report((*path, "load_factor"), f"compatible = {pool.compatible!r} picks whatever is in flight; expected 0, or none")
    if pool.load not in (None, "connections") and policy is not None and policy != "power-of-two":
        report((*path, "load"), f'the policy {policy!r} has its own load; expected policy = "power-of-two"')
    if pool.compatible and policy is not None and policy != _COMPATIBLE[pool.compatible]:
        report((*path, "compatible"), f'{pool.compatible!r} is for policy = "{_COMPATIBLE[pool.compatible]}"')


# Below 429 a status answers what the client asked for: clients could eject servers with it. nginx, too, never counts 403 and
# 404 as failures (proxy_next_upstream). What is below 200 is no final response, which alone is looked at for a retry.
_LEAST_STATUS = {"ejection": 429, "retries": 200, "health": 100}


def _failures(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    for section, values in (("retries", pool.retries), ("ejection", pool.ejection), ("health", pool.health)):
        for index, item in enumerate(values.statuses or () if values is not None else ()):
            if item is not None:
                try:
                    parse_statuses([item], _LEAST_STATUS[section])
                except ValueError as exc:
                    report(("pools", name, section, "statuses", index), str(exc))
    health = pool.health
    if health is None:
        return
    path = ("pools", name, "health")
    if health.pattern:
        try:
            re.compile(health.pattern)
        except (re.error, OverflowError, RecursionError) as exc:  # a repetition or a nesting beyond what `re` can do
            report((*path, "pattern"), f"{shown(health.pattern)} is no regular expression: {str(exc)[:100]}")
    for field, value in (health.headers or {}).items():
        good = grammar.token.fullmatch(field.encode()) and grammar.value.fullmatch((value or "").encode("latin-1", "replace"))
        if not good:
            report((*path, "headers", field), "is no field; expected a name of letters, digits and hyphens, and a value")
    if health.type == "tcp":
        default = HealthConfig()
        for key in ("path", "method", "host", "headers", "statuses", "text", "pattern"):
            if getattr(health, key) not in (None, getattr(default, key)):
                report((*path, key), 'asks for an answer, which a check of the type "tcp" does not get')


def _address(text: str | None, path: tuple[str | int, ...], report: ReportProblem) -> bool:
    if text is None:
        return False
    try:
        parse_address(text)
    except ValueError as exc:
        report(path, str(exc))
        return False
    return True


def _own_address(text: str | None, path: tuple[str | int, ...], report: ReportProblem) -> bool:
    """Check an address to listen on."""
    if not _address(text, path, report):
        return False
    if "://" in (text or ""):
        report(path, f"{shown(text)} has a scheme; expected HOST:PORT or unix:/path (TLS comes with [[listen.certificates]])")
        return False
    return True
