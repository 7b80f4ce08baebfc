"""Routes: host and path to the name of a pool.

The most specific route wins: an exact host before a wildcard (a longer one first) before any host; then the longest path
prefix; of equals the first in the configuration. Paths are compared as they came, byte for byte, for what a server makes
of `//`, `/../` or `%2F` only the server knows: routes divide traffic, they are no access rules.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.errors import NoRoute


@dataclass(frozen=True, slots=True)
class Route:
    hosts: Sequence[str]  # names, or `*.` and a name; none: any host
    paths: Sequence[str]  # prefixes; none: any path
    pool: str


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, list[tuple[bytes, str]]] = {}
        self._wildcard: dict[str, list[tuple[bytes, str]]] = {}
        self._any: list[tuple[bytes, str]] = []
        for route in routes:
            prefixes = [(path.encode(), route.pool) for path in route.paths or ("",)]
            for host in route.hosts:
                name = host.lower().removesuffix(".")  # RFC 1034 3.1: a last dot means the same name
                if name.startswith("*."):
                    self._wildcard.setdefault(name[1:], []).extend(prefixes)
                else:
                    self._exact.setdefault(name, []).extend(prefixes)
            if not route.hosts:
                self._any.extend(prefixes)
        for table in (*self._exact.values(), *self._wildcard.values(), self._any):
            table.sort(key=lambda entry: -len(entry[0]))  # stable: of equals the first stays first

    def pool(self, host: str, path: bytes) -> str:
        """The pool for a host (lower-case, without port and last dot) and a path. Raises NoRoute."""
        if self._exact:
            found = _longest(self._exact.get(host, ()), path)
            if found is not None:
                return found
        if self._wildcard:
            dot = host.find(".")
            while dot >= 0:
                found = _longest(self._wildcard.get(host[dot:], ()), path)
                if found is not None:
                    return found
                dot = host.find(".", dot + 1)
        found = _longest(self._any, path)
        if found is None:
            raise NoRoute(f"no route for host {host!r} and path {path[:80]!r}")
        return found


def _longest(entries: Sequence[tuple[bytes, str]], path: bytes) -> str | None:
    for prefix, pool in entries:
        if path.startswith(prefix):
            return pool
    return None
