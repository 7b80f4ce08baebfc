"""What cannot work in a pool that redirects, and in the public addresses of servers."""
from __future__ import annotations

import ipaddress
import re

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.pool import PoolConfig

_PUBLIC = re.compile(r"https?://(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?)(?::([0-9]{1,5}))?/?")
_DEFAULT_STATUS = PoolConfig(servers=()).redirect_status


def check_redirecting(name: str, pool: PoolConfig, report: ReportProblem) -> None:
    """Report what cannot work in the mode of a pool."""
    path = ("pools", name)
    redirects = pool.mode == "redirect"
    if not redirects and pool.mode and pool.redirect_status not in (None, _DEFAULT_STATUS):
        report((*path, "redirect_status"), 'has no meaning without mode = "redirect"')
    for index, server in enumerate(pool.servers or ()):
        if server is None or None in (server.public, pool.mode):
            continue
        place = (*path, "servers", index)
        if server.public and not redirects:
            report((*place, "public"), 'has no meaning without mode = "redirect" in the pool')
        elif redirects and not server.public:
            report(place, 'missing: public; a pool with mode = "redirect" sends clients there, as in '
                   'public = "https://s1.example.com"')
        elif server.public and not _is_public(server.public):
            report((*place, "public"), f"{server.public!r} is no address to send clients to; expected http:// or https://, a "
                   "host, and perhaps a port, without path and query")
        if redirects and server.max_connections:
            report((*place, "max_connections"), 'has no meaning with mode = "redirect": requests go by the balancer')
    if redirects and pool.queue is not None:
        report((*path, "queue"), 'has no meaning with mode = "redirect": no server is ever full')


def _is_public(text: str) -> bool:
    found = _PUBLIC.fullmatch(text)
    if found is None or (found[2] and not 0 < int(found[2]) <= 65535):
        return False
    try:
        return not found[1] or bool(ipaddress.IPv6Address(found[1]))
    except ValueError:
        return False
