"""Addresses of servers and listeners: host and port, or a unix socket's path."""
from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from prefork_lb.errors import shown

# RFC 1123 2.1: labels of letters, digits and hyphens; underscores occur in names that container tools make.
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_SCHEMES = {"http://": 80, "https://": 443}
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class Address:
    """`path` is set for a unix socket, else `host` (a name, or an IP address without brackets) and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def tls_name(self) -> str:
        """The host as TLS sends and verifies it: without the dot that ends a fully qualified name (RFC 6066 3)."""
        return self.host.removesuffix(".")

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https://' if self.tls else ''}{host}:{self.port}"


def parse_address(text: str, default_port: int | None = None) -> Address:
    """Parse "10.0.0.1:8001", "[::1]:8001", "name:8001", "unix:/path", or one of the first with http:// or https:// before it.

    Two spellings of one address give the same one. Raises ValueError that says what is expected.
    """
    for scheme, port in _SCHEMES.items():
        if text.lower().startswith(scheme):
            rest = text[len(scheme):]
            if "/" in rest or "@" in rest:
                raise ValueError(f"{shown(text)} is more than an address; expected {scheme}HOST:PORT, without path or user")
            host, number = _split(rest, port)
            return Address(host, number, tls=scheme == "https://")
    if text.startswith("unix:"):
        path = text[5:]
        # sun_path has 108 bytes, the last for NUL (unix(7)).
        if not path.startswith("/") or not path.isprintable() or len(path.encode()) > 107:
            raise ValueError(f"{shown(text)} is no unix socket; expected unix: and an absolute path of at most 107 bytes")
        return Address(path=path)
    host, port = _split(text, default_port)
    return Address(host, port)


def is_server_name(text: str) -> bool:
    """Whether TLS can ask for `text` and verify it: a host name without a dot at its end (RFC 6066 3), or an IP address."""
    return _is_host(text) and not text.endswith(".") or _is_ip(text, 6) and "%" not in text


def unmapped(ip: str) -> str:
    """The IPv4 address in an IPv4-mapped one, `::ffff:192.0.2.1` (RFC 4291 2.5.5.2); any other address unchanged.

    A socket that listens for both families reports IPv4 clients in the mapped form.
    """
    if ip.startswith("::ffff:") and "." in ip:
        return ip[7:]
    return ip


def _split(text: str, default_port: int | None) -> tuple[str, int]:
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if not closing or not _is_ip(host, 6):
            raise ValueError(f"{shown(text)} has no IPv6 address in its brackets; expected one like [::1]:8001")
        if "%" in host:
            raise ValueError(f"{shown(text)} has a zone; expected an address without one, like [::1]:8001")
        host = str(ipaddress.ip_address(host))
    else:
        host, colon, port_text = text.partition(":")
        if ":" in port_text:
            raise ValueError(f"{shown(text)} looks like an IPv6 address without brackets; expected one like [::1]:8001")
        rest = colon + port_text
        if not _is_host(host):
            raise ValueError(f"{shown(host)} is neither an IP address nor a host name; expected HOST:PORT or unix:/path")
        host = host.lower()
    if not rest and default_port is not None:
        return host, default_port
    if not rest.startswith(":"):
        raise ValueError(f"{shown(text)} has no port; expected HOST:PORT, as in {text}:8001")
    number = rest[1:]
    if not _PORT.fullmatch(number) or int(number) > 65535:
        raise ValueError(f"{shown(number)} is no port; expected a number in 1..65535")
    return host, int(number)


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    if text.replace(".", "").isdigit():
        return _is_ip(text, 4)
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))
