"""Sessions by the application's own cookie, or path parameter, whose value ends with the route of a server: `ID.ROUTE`.

Apache's way (mod_proxy_balancer's `stickysession` and `route`), and Tomcat's `jvmRoute`. The application writes the route behind
its session's ID; nothing is added to a response here.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from prefork_lb.balance.policy import RequestInfo
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.session import MOST_VALUES, NOTHING, Pairs, Session, SessionRules
from prefork_lb.wire.cookies import cookies
from prefork_lb.wire.head import Index


class RouteSticky:
    """The mode `route`."""

    cookie = b""
    keyed = None

    def __init__(self, servers: Sequence[Server], rules: SessionRules, cookie: str, parameter: str) -> None:
        self.rules = rules
        self._servers = {server.route.encode(): server for server in servers if server.route}
        self._name = cookie.encode()
        self._parameter = b";%b=" % parameter.encode() if parameter else b""
        self._none = Session(None)

    def read(self, request: RequestInfo, is_https: bool) -> object:
        """The server whose route stands in a cookie of this name, else in the path parameter."""
        if self._name:
            for value in islice(cookies(request.index.get(b"cookie", ()), self._name), MOST_VALUES):
                if (server := self._servers.get(_route(value.strip(b'"')))) is not None:
                    return server
        if self._parameter:
            path = request.target.partition(b"?")[0]
            _, found, rest = path.partition(self._parameter)
            if found:
                return self._servers.get(_route(rest.partition(b"/")[0].partition(b";")[0]))
        return None

    def find(self, told: object) -> Session:
        return Session(told) if isinstance(told, Server) else self._none

    def replacement(self, session: Session, candidates: Sequence[Server]) -> Server | None:
        return None

    def settle(self, session: Session, server: Server, answer: Index) -> Pairs:
        return NOTHING  # the application of the new server writes its own route


def _route(value: bytes) -> bytes:
    return value.rpartition(b".")[2] if b"." in value else b""
