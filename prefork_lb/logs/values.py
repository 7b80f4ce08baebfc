"""What a line holds of an exchange, one function a field (`log_schema.FIELDS`)."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from prefork_lb.proxy.request import NO_HEAD, Request
from prefork_lb.wire.head import Index

Value = bytes | float | Sequence[bytes] | None
"""A text, a number, or texts. None: the exchange has no such value."""

TARGET_BYTES = 2048


def picked(request: Request) -> bytes:
    """Why the exchange has the server that it has."""
    server, session, plan = request.server, request.session, request.plan
    if session is not None and session.server is server:
        return b"session"
    if request.retries:
        return b"another attempt"
    if request.reply is not None and request.reply.lease.trial is not None:
        return b"trial"
    if server is not None and server.backup:
        return b"backup"
    if plan is not None:
        if plan.pool.usable == 1:
            return b"only one"
        if plan.pool.key_of is not None:
            return b"key"
    return b"policy"


def session(request: Request) -> bytes:
    """What became of the client's session."""
    told = request.session
    if told is None or request.server is None:
        return b"none"
    if told.server is None:
        return b"new"
    return b"kept" if told.server is request.server else b"moved"


def first_byte_ms(request: Request) -> float | None:
    """Milliseconds from the claim of the first server to the head of the answer."""
    return (request.answered_at - request.leased_at) * 1e3 if request.answered_at else None


def attempts(request: Request) -> int:
    """How many requests were sent to servers."""
    return request.attempts if request.leased_at else 0


def fields_named(names: Sequence[bytes], index: Index) -> list[tuple[bytes, bytes]]:
    """The fields of these names (lower case) that are there, repeated ones joined."""
    return [(name, b", ".join(index[name])) for name in names if name in index]


def response_index(request: Request) -> Index:
    """The fields of the answer, by their names in lower case."""
    if request.reply is not None:
        return request.reply.head.index
    return {name.lower(): [value] for name, value in request.page}


def _field(name: bytes) -> Callable[[Request], Value]:
    def find(request: Request) -> Value:
        values = request.head.index.get(name)
        return b", ".join(values) if values else None

    return find


VALUES: dict[str, Callable[[Request], Value]] = {
    "pid": lambda request: os.getpid(),
    "client": lambda request: request.peer.address.encode() or None,
    "method": lambda request: request.head.method,
    "scheme": lambda request: request.peer.scheme,
    "host": _field(b"host"),
    "target": lambda request: request.head.target,
    "protocol": lambda request: b"HTTP/1.%d" % request.head.minor if request.head is not NO_HEAD else b"-",
    "referer": _field(b"referer"),
    "user_agent": _field(b"user-agent"),
    "pool": lambda request: request.plan.pool.name.encode() if request.plan is not None else None,
    "user": lambda request: (request.passed.user or None) if request.passed is not None else None,
    "status": lambda request: request.status,
    "bytes_in": lambda request: request.bytes_in,
    "bytes_out": lambda request: request.bytes_out,
    "server": lambda request: request.server.name.encode() if request.server is not None else None,
    "picked": lambda request: picked(request) if request.server is not None else None,
    "session": session,
    "attempts": attempts,
    "retries": lambda request: request.retries,
    "queue_ms": lambda request: request.queue_s * 1e3,
    "connect_ms": lambda request: request.connect_s * 1e3,
    "first_byte_ms": first_byte_ms,
    "request_id": lambda request: request.identity.request_id if request.identity is not None else None,
    "trace_id": lambda request: request.identity.trace_id if request.identity is not None else None,
    "total_ms": lambda request: (request.ended_at - request.started) * 1e3,
    "ending": lambda request: request.ending.encode(),
    "error": lambda request: request.error.encode("utf-8", "backslashreplace") or None,
    "failures": lambda request: [failure.encode("utf-8", "backslashreplace") for failure in request.failures] or None,
}
"""All but the times of day and the objects, which each format writes in its own way."""
