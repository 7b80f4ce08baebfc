"""What cannot work in `[pools.NAME.discovery]`."""
from __future__ import annotations

import re
from urllib.parse import urlsplit

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.discovery import FILE_FORMATS, name_server
from prefork_lb.config.pool import PoolConfig
from prefork_lb.errors import shown
from prefork_lb.net.address import parse_address

_SOURCES = "file", "dns", "srv", "http"
# RFC 2782: service and protocol begin with an underscore, but any name may have SRV records.
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")


def check_discovery(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    """Report what cannot work in the discovery of a pool's servers, and a pool that has neither servers nor discovery."""
    discovery = pool.discovery
    if pool.servers == () and not pool.may_be_empty:
        report(("pools", name, "servers"), "is empty; expected at least one")
    if discovery is None or None in (discovery.file, discovery.dns, discovery.srv, discovery.http):
        return
    path = ("pools", name, "discovery")
    given = [key for key in _SOURCES if getattr(discovery, key)]
    if len(given) != 1:
        found = f"found {' and '.join(given)}" if given else "found none"
        report(path, f"{found}; expected one of {', '.join(_SOURCES)}")
    for key in given:
        if problem := _CHECKS[key](getattr(discovery, key)):
            report((*path, key), problem)
    for index, server in enumerate(discovery.resolver or ()):
        if server is not None and not _is_name_server(server):
            report((*path, "resolver", index), f"{shown(server)} is no name server; expected an IP address, perhaps with a port: "
                   "10.0.0.53 or 10.0.0.53:53")
    if discovery.resolver and not (discovery.dns or discovery.srv):
        report((*path, "resolver"), "has no meaning without dns or srv")
    if pool.mode == "redirect":
        report(path, 'servers of a pool with mode = "redirect" need a public address, which only `servers` can give')


def _is_name_server(text: str) -> bool:
    try:
        name_server(text)
    except ValueError:
        return False
    return True


def _file(text: str) -> str:
    if not text.lower().endswith(FILE_FORMATS):
        return f"{shown(text)} has no known format; expected a name that ends with {', '.join(FILE_FORMATS)}"
    return ""


def _dns(text: str) -> str:
    try:
        address = parse_address(text)
    except ValueError as exc:
        return str(exc)
    return f"{shown(text)} is no name with a port; expected one like app.internal:8001" if address.is_unix else ""


def _srv(text: str) -> str:
    if not _NAME.fullmatch(text):
        return f"{shown(text)} is no name; expected one like _http._tcp.app.internal"
    return ""


def _http(text: str) -> str:
    try:
        url = urlsplit(text)
        is_good = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        is_good = False
    # Not the text itself: it may have a password.
    return "" if is_good and text.isprintable() and " " not in text else "no URL; expected one like http://10.0.0.5:8080/servers"


_CHECKS = {"file": _file, "dns": _dns, "srv": _srv, "http": _http}
