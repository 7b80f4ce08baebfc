"""Records of exchanges, as front ends hand them over."""
from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from prefork_lb.proxy.plan import Plan
from prefork_lb.proxy.request import Request
from prefork_lb.upstream.server import Server
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.framing import NO_BODY
from prefork_lb.wire.head import HeadLimits, RequestHead
from prefork_lb.wire.parse import parse_response
from tests.unit.proxy.loopback import Client, Source
from tests.unit.upstream.parts import new_server

PEER = ClientInfo("192.0.2.1", b"http", 80, False)
Pairs = Sequence[tuple[bytes, bytes]]


def record(fields: Pairs = ((b"Host", b"a.test"),), target: bytes = b"/", *, server: Server | None = None, usable: int = 2,
           error: Exception | None = None, answer: bytes = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n", key: bool = False,
           is_trial: bool = False, page: Pairs = ()) -> Request:
    """An exchange that a server has answered, unless there was an error: 4 ms until the claim, 8 of waiting, 4 of sending."""
    request = Request(RequestHead(b"GET", target, 1, list(fields)), PEER, Source(), Client(), started=100.0)
    pool: Any = SimpleNamespace(name="web", usable=usable, key_of=len if key else None)
    request.plan = Plan(None, PEER, pool, NO_BODY, b"", target, None)
    request.leased_at = 100.004
    if error is None:
        request.answered_at = 100.012
        reply: Any = SimpleNamespace(status=200, served_by=server or new_server(0),
                                     lease=SimpleNamespace(trial=is_trial or None),
                                     head=parse_response(answer, HeadLimits()))
        request.end(100.016, 5, None, reply)
    else:
        request.failed_at = server
        request.end(100.016, 5, error, None, page)
    return request


def with_session(request: Request, server: Server | None) -> Request:
    """The same, of a session that belongs to `server`."""
    request.session = cast(Any, SimpleNamespace(server=server, told=None))
    return request
