"""Routes: from a request to the one that says what becomes of it.

The most specific route wins, whatever the order in the file:
1. the host: an exact name before a wildcard, a longer wildcard before a shorter one, any host last;
2. the path: a whole one ("=/a") before a pattern ("~..."), of two patterns the longer one; then a longer prefix before a
   shorter one, any path last;
3. the further conditions: more of them before fewer.
A route whose further conditions a request does not meet is passed over, and the next one is looked at. Two routes with the same
host, path and number of conditions may both be met by a request: then the one whose conditions come first in the alphabet wins,
and the check of the configuration tells of it.

The cost of a match depends on the labels of the host and the segments of the path, not on the number of routes: tables lead to
those with the same host and path. Only patterns are tried one by one.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prefork_lb.errors import BadRequest, NoRoute
from prefork_lb.net.networks import LiesIn, lies_in
from prefork_lb.routing.actions import Actions
from prefork_lb.routing.conditions import Asked, Condition, conditions, rank
from prefork_lb.routing.path import compared, plain_path
from prefork_lb.routing.pattern import Matches, compile_pattern
from prefork_lb.routing.serving import Serving
from prefork_lb.routing.template import Facts
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead
from prefork_lb.wire.target import Destination


@dataclass(frozen=True, slots=True)
class Route:
    """What a request must be like, and what then becomes of it."""

    pool: str  # of several, the first; empty: the route has an answer of its own
    hosts: Sequence[str] = ()  # names, or `*.` and a name; none: any host
    paths: Sequence[str] = ()  # prefixes, "=" and a whole path, or "~" and a pattern; none: any path
    methods: Sequence[str] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    clients: Sequence[str] = ()
    scheme: str = ""  # that the client speaks; empty: any
    actions: Actions | None = None  # None: the pool gets the request as it is
    serving: Serving | None = None  # None: by the pool alone
    filters: Sequence[str] = ()  # the names of those that look at its requests


_NOBODY: Final = lies_in(())


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route], passes_doubtful: bool = False, is_trusted: LiesIn = _NOBODY) -> None:
        """`passes_doubtful`: paths that servers may read in another way are compared as they are, and not refused.
        `is_trusted`: whether the proxy at an address is believed.

        Raises ValueError for a pattern or a network that is none.
        """
        self.routes = routes
        self._passes_doubtful = passes_doubtful
        self._is_trusted = is_trusted
        self._compares_paths = any(route.paths for route in routes)
        self._hosts: dict[str, _Paths] = {}
        self._below: dict[str, _Paths] = {}  # wildcards, by the name with its first dot
        self._any = _Paths()
        for route in routes:
            tests = conditions(route, is_trusted)
            for host in route.hosts:
                name = host.lower().removesuffix(".")  # RFC 1034 3.1: a last dot means the same name
                table, key = (self._below, name[1:]) if name.startswith("*.") else (self._hosts, name)
                table.setdefault(key, _Paths()).add(route, tests)
            if not route.hosts:
                self._any.add(route, tests)
        for paths in (*self._hosts.values(), *self._below.values(), self._any):
            paths.sort()
        self._only = routes[0] if len(routes) == 1 and routes[0] == Route(routes[0].pool) else None

    def find(self, goal: Destination, head: RequestHead, peer: ClientInfo) -> tuple[Route, bytes]:
        """The route of a request, and its target in the form that was compared.

        Raises NoRoute, and BadRequest for a path that servers may read in another way than this one.
        """
        target, host = goal.target, goal.name
        if self._only is not None:
            return self._only, target
        path = b""
        if self._compares_paths:
            length = plain_path(target)
            if length < 0:
                path, target = self._compared(target)
            else:
                path = target[:length]
        asked = Asked(head, target, peer)
        paths = self._hosts.get(host)
        route = paths.find(path, asked) if paths is not None else None
        if route is None and self._below:
            route = self._find_below(host, path, asked)
        if route is None:
            route = self._any.find(path, asked)
        if route is None:
            raise NoRoute(f"no route for host {host!r} and path {goal.target[:80]!r}")
        return route, target

    def _compared(self, target: bytes) -> tuple[bytes, bytes]:
        """The path of a target in the form in which it is compared, and the target with the path that is sent."""
        raw, mark, query = target.partition(b"?")
        path, sent, doubt = compared(raw)
        if doubt and not self._passes_doubtful:
            raise BadRequest(f"the path has {doubt}; routes compare paths, so it is refused (proxy.doubtful_paths)")
        return path, sent + mark + query

    def _find_below(self, host: str, path: bytes, asked: Asked) -> Route | None:
        """The route of the longest wildcard that a host lies below."""
        dot = host.find(".")
        while dot >= 0:
            paths = self._below.get(host[dot:])
            route = paths.find(path, asked) if paths is not None else None
            if route is not None:
                return route
            dot = host.find(".", dot + 1)
        return None

    @property
    def own_cookies(self) -> frozenset[bytes]:
        """The names of cookies that are for routes alone, and for no server."""
        splits = [route.serving.split for route in self.routes if route.serving is not None]
        return frozenset(split.cookie for split in splits if split is not None and split.cookie)

    def facts(self, route: Route, goal: Destination, target: bytes, head: RequestHead, peer: ClientInfo) -> Facts:
        """What the texts of a route can hold of a request; `target` is the one that `find` gave."""
        return Facts(head, target, goal.name, route.paths, peer, self._is_trusted)

    def in_order(self) -> Iterator[tuple[str, str, Route]]:
        """Each host, path and route in the order in which they are tried; empty for any host and any path."""
        for host in sorted(self._hosts):
            yield from self._hosts[host].in_order(host)
        for host in sorted(self._below, key=lambda host: (-host.count("."), host)):
            yield from self._below[host].in_order(f"*{host}")
        yield from self._any.in_order("")


_Candidates = list[tuple[Route, Sequence[Condition]]]


class _Paths:
    """The routes of one host, by path."""

    def __init__(self) -> None:
        self._whole: dict[bytes, _Candidates] = {}
        self._patterns: dict[str, tuple[Matches, _Candidates]] = {}
        self._prefixes: dict[bytes, _Candidates] = {}  # the prefix "/api/" is under "/api/", "/api" under "/api"
        self._any: _Candidates = []
        self._tried: list[tuple[Matches, _Candidates]] = []  # the patterns, in order
        self._longest = 0  # prefix

    def add(self, route: Route, tests: Sequence[Condition]) -> None:
        entry = route, tests
        for path in route.paths:
            if path.startswith("="):
                self._whole.setdefault(path[1:].encode(), []).append(entry)
            elif path.startswith("~"):
                if path not in self._patterns:
                    self._patterns[path] = compile_pattern(path[1:]), []
                self._patterns[path][1].append(entry)
            else:
                self._prefixes.setdefault(path.encode(), []).append(entry)
        if not route.paths:
            self._any.append(entry)

    def sort(self) -> None:
        """Bring equals into the order in which they are tried. To be called once, when all are there."""
        of_patterns = (candidates for _, candidates in self._patterns.values())
        for candidates in (*self._whole.values(), *self._prefixes.values(), *of_patterns, self._any):
            candidates.sort(key=lambda entry: rank(entry[0]))
        self._longest = max(map(len, self._prefixes), default=0)
        self._tried = [entry for _, entry in self._sorted_patterns()]

    def in_order(self, host: str) -> Iterator[tuple[str, str, Route]]:
        """All routes in the order in which they are tried, each with the host and its path."""
        whole = sorted((f"={path.decode()}", candidates) for path, candidates in self._whole.items())
        patterns = [(text, candidates) for text, (_, candidates) in self._sorted_patterns()]
        prefixes = sorted(((path.decode(), candidates) for path, candidates in self._prefixes.items()),
                          key=lambda entry: (-len(entry[0]), entry[0]))
        for path, candidates in (*whole, *patterns, *prefixes, ("", self._any)):
            for route, _ in candidates:
                yield host, path, route

    def _sorted_patterns(self) -> list[tuple[str, tuple[Matches, _Candidates]]]:
        return sorted(self._patterns.items(), key=lambda entry: (-len(entry[0]), entry[0]))

    def find(self, path: bytes, asked: Asked) -> Route | None:
        if self._whole and path in self._whole:
            found = _met(self._whole[path], asked)
            if found is not None:
                return found
        for matches, candidates in self._tried:
            if matches(path):
                found = _met(candidates, asked)
                if found is not None:
                    return found
        if self._prefixes:
            for prefix in _prefixes(path, self._longest):
                if prefix in self._prefixes:
                    found = _met(self._prefixes[prefix], asked)
                    if found is not None:
                        return found
        return _met(self._any, asked)


def _met(candidates: _Candidates, asked: Asked) -> Route | None:
    """The first route all of whose conditions the request meets."""
    for route, tests in candidates:
        for test in tests:
            if not test(asked):
                break
        else:
            return route
    return None


def _prefixes(path: bytes, longest: int) -> Iterator[bytes]:
    """The prefixes of a path that end at the border of a segment, the longest first: of /a/b these are /a/b, /a/, /a and /.

    Those that are much longer than `longest` are left out, or a path of 4,000 segments would cost 32 MB of copies.
    """
    if len(path) <= longest:
        yield path
    end = path.rfind(b"/", 0, longest + 1)
    while end >= 0:
        if end + 1 < len(path):
            yield path[:end + 1]
        if end:
            yield path[:end]
        end = path.rfind(b"/", 0, end)
