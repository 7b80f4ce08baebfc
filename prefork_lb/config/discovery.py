"""Where a pool finds its servers, `[pools.NAME.discovery]`. See `config.model`."""
from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from prefork_lb.config.section import Seconds, Section, meta
from prefork_lb.net.address import parse_address

MASK = "***"
"""Stands for what others must not see."""
FILE_FORMATS = ".toml", ".json", ".yaml", ".yml"


class DiscoveryConfig(Section, frozen=True):
    """Servers that are listed elsewhere, `[pools.NAME.discovery]`, see [discovery.md](discovery.md): one of `file`, `dns`, `srv`
    and `http`. Servers that appear there are added, servers that vanish are drained and removed; nothing is reloaded."""

    file: Annotated[str, meta(
        "Path of a list of servers: TOML, JSON or YAML, by the ending of its name. Changes are seen within a second."
    )] = ""
    dns: Annotated[str, meta(
        '"NAME:PORT": each address of the name (A, AAAA) is a server; "https://NAME:PORT" for TLS.'
    )] = ""
    srv: Annotated[str, meta(
        'Name of SRV records, as "_http._tcp.app.internal": address, port and weight of each server; all but those of the first '
        "priority are backups."
    )] = ""
    http: Annotated[str, meta(
        "URL of a list of servers as JSON, in the format of Prometheus' `http_sd`."
    )] = ""
    interval: Annotated[Seconds, meta(
        "Seconds until the next look: at `http`, at names whose TTL is 0, after a look that failed, and at a file that has "
        "changed unseen by inotify."
    )] = 5.0
    resolver: Annotated[tuple[str, ...], meta(
        'Name servers to ask, "ADDRESS" or "ADDRESS:PORT"; none: those of /etc/resolv.conf.'
    )] = ()
    min_servers: Annotated[int, meta(
        "A list with fewer servers than this is not believed: the one before stays.", ge=1, le=10000
    )] = 1

    @property
    def where(self) -> str:
        """Where the list is, in words."""
        if self.http:
            return f"http {without_secrets(self.http)}"
        return f"file {self.file}" if self.file else f"dns {self.dns}" if self.dns else f"srv {self.srv}"


def without_secrets(url: str) -> str:
    """The URL for others' eyes: a user's password and the values of a query may be secrets."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    # Not by urlunsplit: it makes unix:///path unix:/path.
    return f"{parts.scheme}://{MASK if user else ''}{at}{host}{parts.path}{f'?{MASK}' if parts.query else ''}" if url else ""


def name_server(text: str) -> tuple[str, int]:
    """IP address and port of a name server, as `resolver` has it. Raises ValueError."""
    try:
        return str(ipaddress.ip_address(text)), 53
    except ValueError:
        found = parse_address(text)
        return str(ipaddress.ip_address(found.host)), found.port
