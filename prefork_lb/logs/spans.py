"""Exchanges as spans: one of the server's kind for each exchange, one of the client's kind for each attempt.

They are described here, by OpenTelemetry's conventions for HTTP, and sent in batches by a thread. `logs.otlp` sends them, and it
alone knows OpenTelemetry's packages.
"""
from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from prefork_lb.clock import Clock, monotonic
from prefork_lb.log_summary import summary
from prefork_lb.net.address import Address
from prefork_lb.proxy.request import FINISHED, Request
from prefork_lb.proxy.tracing import Attempt, Trace

_EVERY_S = 1.0
_BATCH = 512
_MOST_WAITING = 4096  # exchanges
_END_S = 2.0

# What the conventions name as methods; any other text might be of a client's making.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"))
_HOST = re.compile(r"(.+?)(?::([0-9]{1,5}))?")
_SIGNATURE = re.compile(r"\b(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&]*")  # in a query: keys to what it leads to

Attributes = Mapping[str, str | int]


class Span(NamedTuple):
    """One span. Instants are nanoseconds since the epoch, IDs hexadecimal."""

    name: str
    is_client: bool
    trace_id: str
    span_id: str
    parent_id: str  # empty: none
    begun: int
    ended: int
    attributes: Attributes
    error: str | None  # None: it went well


Export = Callable[[Sequence[Span]], bool]
"""Sends spans to where they are collected; whether they have come there. It may take seconds, and does not raise."""


def spans_of(request: Request, trace: Trace, epoch: float) -> list[Span]:
    """The spans of an exchange that is over. `epoch` is when the engine's clock was 0, in seconds since the epoch."""
    found = [_own(request, trace, epoch)]
    found += [_of_attempt(request, trace, attempt, number, epoch) for number, attempt in enumerate(trace.attempts)]
    return found


def _own(request: Request, trace: Trace, epoch: float) -> Span:
    head, method = request.head, _method(request)
    path, _, query = _text(head.target).partition("?")
    place = _HOST.fullmatch(_text(head.index.get(b"host", (b"",))[0]))
    attributes: dict[str, str | int] = {
        "http.request.method": method, "url.scheme": _text(request.peer.scheme), "url.path": path,
        "network.protocol.version": f"1.{head.minor}", "http.request.body.size": request.bytes_in,
        "http.response.body.size": request.bytes_out, "http.response.status_code": request.status,
    }
    if query:
        attributes["url.query"] = _SIGNATURE.sub(r"\1=REDACTED", query)
    if place is not None:
        attributes["server.address"] = place[1]
        if place[2]:
            attributes["server.port"] = int(place[2])
    if request.peer.address:
        attributes["client.address"] = request.peer.address
    if agent := head.index.get(b"user-agent"):
        attributes["user_agent.original"] = _text(agent[0])
    if request.plan is not None:
        attributes["prefork_lb.pool"] = request.plan.pool.name
    error = None
    if request.ending != FINISHED or request.status >= 500:
        error = request.error or request.ending
        attributes["error.type"] = str(request.status) if request.status >= 500 else request.ending
    return Span(method, False, trace.trace_id.decode(), trace.span_id.decode(), trace.parent_id.decode(),
                _ns(epoch, request.started), _ns(epoch, request.ended_at), attributes, error)


def _of_attempt(request: Request, trace: Trace, attempt: Attempt, number: int, epoch: float) -> Span:
    method, address = _method(request), attempt.server.address
    attributes: dict[str, str | int] = {
        "http.request.method": method, **_where(address), "url.full": f"{_origin(address)}{_text(request.head.target)}"}
    if number:
        attributes["http.request.resend_count"] = number
    error = None
    answered = not attempt.ended and request.reply is not None and request.reply.served_by is attempt.server
    if answered and request.reply is not None:
        status = attributes["http.response.status_code"] = request.reply.status
        if status >= 400:
            error = attributes["error.type"] = str(status)
    elif attempt.phase == "status":
        attributes["http.response.status_code"] = int(attempt.error)
        error = attributes["error.type"] = attempt.error
    else:
        # One of a hedged request is given up when the other has answered; a client that leaves ends them all.
        error = attempt.error or request.error or "given up"
        attributes["error.type"] = attempt.phase or "given up"
    return Span(method, True, trace.trace_id.decode(), attempt.span_id.decode(), trace.span_id.decode(),
                _ns(epoch, attempt.begun), _ns(epoch, attempt.ended or request.ended_at), attributes, error)


def _where(address: Address) -> Attributes:
    if address.is_unix:
        return {"server.address": address.path, "network.transport": "unix"}
    return {"server.address": address.host, "server.port": address.port}


def _origin(address: Address) -> str:
    return f"{address}" if address.tls or address.is_unix else f"http://{address}"


def _method(request: Request) -> str:
    method = _text(request.head.method)
    return method if method in _METHODS else "_OTHER"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _ns(epoch: float, instant: float) -> int:
    return int((epoch + instant) * 1e9)


class SpanLog:
    """Takes the records of exchanges, and has their spans sent by a thread. A collector that is away costs spans, and no time."""

    def __init__(self, name: str, export: Export, clock: Clock = monotonic) -> None:
        """`name` is where the spans go, for messages."""
        self._name, self._export, self._clock = name, export, clock
        self._waiting: deque[list[Span]] = deque()
        self._wake, self._is_over = threading.Event(), False
        self._lost = 0  # spans, since the last ones that came there
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def write(self, request: Request) -> None:
        """The exchange is over. Nothing here waits or raises."""
        trace = request.identity.trace if request.identity is not None else None
        if trace is None:
            return
        try:
            spans = spans_of(request, trace, time.time() - self._clock())
        except Exception as exc:
            summary.tell(logging.ERROR, "no spans", "the spans of an exchange cannot be made: %r", exc, exc_info=exc)
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._lose(len(spans), "it is too slow")
            return
        self._waiting.append(spans)
        if len(self._waiting) == _BATCH:
            self._wake.set()

    def close(self) -> None:
        """Send the rest, as far as a short time allows: the process ends."""
        self._is_over = True
        self._wake.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._is_over:
            self._wake.wait(_EVERY_S)
            self._wake.clear()
            while self._waiting:
                self._send()

    def _send(self) -> None:
        batch = [span for _ in range(min(_BATCH, len(self._waiting))) for span in self._waiting.popleft()]
        if not self._export(batch):
            self._lose(len(batch), "it does not take them")
        elif self._lost:
            lost, self._lost = self._lost, 0
            summary.tell(logging.WARNING, ("spans", self._name), "spans are sent to %s again; %d were lost", self._name, lost)

    def _lose(self, count: int, why: str) -> None:
        if not self._lost:
            text = "spans cannot be sent to %s, they are lost until they can: %s"
            summary.tell(logging.ERROR, ("spans", self._name, why), text, self._name, why)
        self._lost += count
