"""What a request is called on its way: its ID, and its place in a trace (W3C Trace Context); how long its phases took.

The names of a trusted proxy are passed on. Those of any other client are replaced: a client can write anything there.
"""
from __future__ import annotations

import random
import re

from prefork_lb.clock import Clock, monotonic
from prefork_lb.upstream.server import Server
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import Index

FIELDS = frozenset((b"x-request-id", b"traceparent", b"tracestate"))
"""The fields, by their names in lower case, that are written anew for each request that has an identity."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,128}")
# W3C Trace Context 3.2.2: version, trace, parent and flags; zeros alone are no ID. Later versions may go on behind the flags.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_TRACESTATE = re.compile(rb"[!-~][ -~]{0,511}")


class Attempt:
    """One attempt of a request that has spans."""

    __slots__ = ("begun", "ended", "error", "phase", "server", "span_id")

    def __init__(self, server: Server, span_id: bytes, begun: float) -> None:
        self.server, self.span_id, self.begun = server, span_id, begun
        self.ended = 0.0  # when it failed; 0: it did not
        self.phase = self.error = ""


class Trace:
    """The spans of a request: its own, and one of each attempt, which its server is told."""

    __slots__ = ("_clock", "_rng", "attempts", "parent_id", "span_id", "trace_id")

    def __init__(self, trace_id: bytes, span_id: bytes, parent_id: bytes, rng: random.Random, clock: Clock) -> None:
        """IDs are hexadecimal; `parent_id` is empty where there is no parent."""
        self.trace_id, self.span_id, self.parent_id = trace_id, span_id, parent_id
        self.attempts: list[Attempt] = []
        self._rng, self._clock = rng, clock

    def begin_attempt(self, server: Server, block: bytes) -> bytes:
        """The request's head for this server, which tells it the span of this attempt."""
        span_id = b"%016x" % (self._rng.getrandbits(64) or 1)
        self.attempts.append(Attempt(server, span_id, self._clock()))
        return block.replace(b"-%b-" % self.span_id, b"-%b-" % span_id, 1)

    def end_attempt(self, server: Server, phase: str, why: str) -> None:
        """The last attempt at this server has failed."""
        for attempt in reversed(self.attempts):
            if attempt.server is server and not attempt.ended:
                attempt.ended, attempt.phase, attempt.error = self._clock(), phase, why
                return


class Identity:
    """Of one request."""

    __slots__ = ("lines", "request_id", "trace", "trace_id")

    def __init__(self, request_id: bytes, trace_id: bytes, lines: bytes, trace: Trace | None = None) -> None:
        self.request_id, self.trace_id = request_id, trace_id
        self.lines = lines  # that tell a server
        self.trace = trace  # None: the request has no spans here

    def block(self, block: bytes) -> bytes:
        """A request's head with these lines."""
        return b"%b%b\r\n" % (block[:-2], self.lines)


class Identities:
    """Names requests."""

    def __init__(self, rng: random.Random, sample: float | None = None, clock: Clock = monotonic) -> None:
        """With a `sample` requests have spans: those whose trusted parent has, and this share of those without a parent."""
        self._rng, self._sample, self._clock = rng, sample, clock

    def of(self, index: Index, peer: ClientInfo) -> Identity:
        """The identity of a request with these fields, as a trusted peer tells it, or a new one."""
        made = b"%048x" % self._rng.getrandbits(192)
        trace_id, span_id, flags = made[:32], made[32:], b"00"
        request_id, state, parent_id = trace_id, b"", b""
        if peer.trusted:
            told = index.get(b"traceparent", ())
            if len(told) == 1 and (found := _TRACEPARENT.fullmatch(told[0])):
                request_id, parent_id, flags = found.groups()
                trace_id = request_id
                state = b",".join(index.get(b"tracestate", ()))
            told = index.get(b"x-request-id", ())
            if len(told) == 1 and _REQUEST_ID.fullmatch(told[0]):
                request_id = told[0]
        trace = None
        if self._sample is not None and (int(flags, 16) & 1 if parent_id else self._rng.random() < self._sample):
            flags = flags if parent_id else b"01"
            trace = Trace(trace_id, span_id, parent_id, self._rng, self._clock)
        lines = b"X-Request-ID: %b\r\ntraceparent: 00-%b-%b-%b\r\n" % (request_id, trace_id, span_id, flags)
        if _TRACESTATE.fullmatch(state):
            lines += b"tracestate: %b\r\n" % state
        return Identity(request_id, trace_id, lines, trace)


def server_timing(queue_s: float, connect_s: float, first_byte_s: float) -> tuple[bytes, bytes]:
    """The field that tells a client how long the phases took, in milliseconds (W3C Server Timing)."""
    return (b"Server-Timing", b"lb-queue;dur=%.1f, lb-connect;dur=%.1f, lb-server;dur=%.1f" % (
        queue_s * 1e3, connect_s * 1e3, first_byte_s * 1e3))
