"""What cannot work in `[admin]`."""
from __future__ import annotations

import re
from collections.abc import Mapping

from prefork_lb.config.admin import AdminConfig, is_of_this_host
from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.tokens import read_tokens
from prefork_lb.errors import shown
from prefork_lb.net.address import parse_address

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?|\[[0-9A-Fa-f:.]+\]")


def check_admin(admin: AdminConfig, pools: Mapping[str, PoolConfig], report: ReportProblem) -> None:
    """Report what cannot work in the section, whose `bind` is an address."""
    if admin.token_file:
        try:
            read_tokens(admin.token_file)
        except ValueError as exc:
            report(("admin", "token_file"), str(exc))
    elif admin.token_file == "" and not is_of_this_host(admin.address):
        report(("admin", "bind"), f"{shown(admin.bind)} is reached from other hosts, and there is no admin.token_file; "
               "expected an address of this host, such as 127.0.0.1:9900 or unix:/path, or a file with tokens")
    for index, host in enumerate(admin.hosts or ()):
        if host is not None and not _HOST.fullmatch(host):
            report(("admin", "hosts", index), f"{shown(host)} is no host; expected a name without port")
    for name, pool in pools.items():
        for index, server in enumerate((pool.servers if pool is not None else ()) or ()):
            if server is not None and _is(server.address, admin):
                report(("pools", name, "servers", index), f"{shown(server.address)} is admin.bind: everybody would reach the "
                       "administration interface by way of the pool")


def _is(text: str | None, admin: AdminConfig) -> bool:
    try:
        return text is not None and parse_address(text) == admin.address
    except ValueError:
        return False
