"""The errors of prefork_lb. Each class carries its facts as attributes, so handlers need not test for kinds.

A `ProxyError` has the side that failed (`side`), the status of the answer to the client (`status`), the phase in which it failed
(`phase`), how the exchange ends by it in words of the access log (`ending`), and whether another attempt may be made (`retry`).
Messages are for the operator's log; the client gets only the status and its short text.
"""
from __future__ import annotations

import enum
from collections.abc import Sequence


def printable(text: str) -> str:
    """`text` with each unprintable character as an escape, as TOML and Python write it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"
                   for char in text)


def shown(value: object) -> str:
    """The value as Python writes it, in at most 60 characters, for a message."""
    if isinstance(value, int) and value.bit_length() > 1024:
        return "a number of hundreds of digits"  # Python writes no number of more than 4300 digits in decimals
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Retry(enum.Enum):
    """Whether an exchange may make another attempt after this failure."""

    NEVER = "never"
    NOTHING_SENT = "nothing-sent"  # no byte of the request left this host: safe for every method
    IF_REUSED = "if-reused"  # a kept-alive connection that the server closed under us: safe for idempotent methods
    IF_IDEMPOTENT = "if-idempotent"  # the server may have seen the request: safe for idempotent methods, at another server


class PreforkLBError(Exception):
    """Every error that prefork_lb raises on purpose."""


class ConfigError(PreforkLBError):
    """A configuration that cannot be used.

    `problems` holds one line for each problem, `file:line: key: what was found, what is expected`; `str()` joins them.
    Unprintable characters, such as ESC and newlines in a file's name, are written as escapes.
    """

    def __init__(self, problems: list[str]) -> None:
        problems = [printable(problem) for problem in problems]
        super().__init__("\n".join(problems))
        self.problems = problems


class InvariantError(PreforkLBError):
    """A defect of prefork_lb: a state that must not occur. Answered with 500, never retried."""


class SteeringError(PreforkLBError):
    """A change of a running instance that was not made; nothing is changed."""


class NotThere(SteeringError):
    """There is no such pool, or no such server in it."""


class Refused(SteeringError):
    """The instance's state does not allow the change at the moment."""


class NoRoom(Refused):
    """Refused, since the table of servers is full."""


class Outdated(SteeringError):
    """The server is not as the operator believed."""


class BadValue(SteeringError):
    """A value that no server may have."""


class ProxyError(PreforkLBError):
    """A request that cannot be served as asked."""

    side = "proxy"
    status = 500
    phase = "internal"
    ending = "internal error"
    retry = Retry.NEVER


class DownstreamError(ProxyError):
    """The client caused the failure. Never counts against a server."""

    side = "downstream"
    ending = "refused"


class BadRequest(DownstreamError):
    """The request breaks the rules of HTTP (RFC 9110, RFC 9112)."""

    status = 400
    phase = "request"


class RequestTimeout(DownstreamError):
    """The client was silent for longer than the idle timeout in the middle of its request."""

    status = 408
    phase = "request"
    ending = "client timed out"


class TargetTooLong(DownstreamError):
    """The request line is over its limit (RFC 9110 15.5.15)."""

    status = 414
    phase = "request"


class HeadTooLarge(DownstreamError):
    """The header section is over its limit (RFC 6585 5)."""

    status = 431
    phase = "request"


class ExpectationFailed(DownstreamError):
    """An Expect other than 100-continue (RFC 9110 10.1.1)."""

    status = 417
    phase = "request"


class NotImplementedByProxy(DownstreamError):
    """A method or transfer coding that this proxy does not support (RFC 9110 15.6.2)."""

    status = 501
    phase = "request"


class VersionNotSupported(DownstreamError):
    """A major version other than HTTP/1 (RFC 9110 15.6.6)."""

    status = 505
    phase = "request"


class NoRoute(DownstreamError):
    """No route of the configuration matches the request."""

    status = 404
    phase = "route"


class RefusedByRoute(ProxyError):
    """The route refuses a request that is well formed. So the client's connection goes on, unlike after a DownstreamError."""

    side = "downstream"
    phase = "route"
    ending = "refused"
    fields: Sequence[tuple[bytes, bytes]] = ()  # of the answer


class NotFound(RefusedByRoute):
    """A route answers with files, and there is none of this name."""

    status = 404


class Forbidden(RefusedByRoute):
    """The route is not for this client."""

    status = 403


class Unauthorized(RefusedByRoute):
    """The route is for users, and the request is of none (RFC 9110 15.5.2)."""

    status = 401

    def __init__(self, message: str, fields: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """`fields` tell the client how it can be of one."""
        super().__init__(message)
        self.fields = fields


class ContentTooLarge(DownstreamError):
    """The request's body is over the limit of its route (RFC 9110 15.5.14)."""

    status = 413
    phase = "request body"


class TooManyRequests(RefusedByRoute):
    """A limit of the route is reached, of the rate or of requests in flight (RFC 6585 4)."""

    status = 429

    def __init__(self, message: str, retry_after_s: int = 1, fields: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """`fields` tell the client of the limit."""
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.fields = fields


class OwnAnswer(ProxyError):
    """No failure: the route has an answer of its own, and no server is asked."""

    phase = "route"
    ending = "finished"

    def __init__(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """`fields` are without the length. A status that allows no content has an empty body."""
        super().__init__(f"the route answers {status}")
        self.status = status
        self.fields = fields
        self.body = body


class FilterFailed(ProxyError):
    """A filter of the site's own has raised an exception, or done what it may not; the message names it."""

    phase = "filter"
    place = ""  # what log lines of a kind have in common: the filter, and where it failed


class MethodNotAllowed(DownstreamError):
    """A method that this proxy does not let through (RFC 9110 15.5.6)."""

    status = 405
    phase = "request"


class FinalRecipient(DownstreamError):
    """OPTIONS with Max-Forwards: 0, which this proxy must answer itself (RFC 9110 7.6.2)."""

    status = 204
    phase = "request"


class LoopDetected(DownstreamError):
    """The request has passed this proxy already (RFC 9110 7.6.3, RFC 5842 7.2)."""

    status = 508
    phase = "route"


class ClientGone(DownstreamError):
    """The client closed its connection before it had its response, so no answer can be sent. Logs say 499."""

    status = 499
    phase = "client"
    ending = "client left"


class UpstreamError(ProxyError):
    """The server caused the failure."""

    side = "upstream"
    status = 502
    ending = "server failed"
    condition = ""  # its name in `retries.on` of the configuration; empty: it cannot be named there


class ConnectFailed(UpstreamError):
    """No connection to the server: refused, unreachable, or its name does not resolve."""

    phase = "connect"
    condition = "connect"
    retry = Retry.NOTHING_SENT


class ConnectTimeout(UpstreamError):
    """The server did not accept within the connect timeout."""

    status = 504
    ending = "server timed out"
    phase = "connect"
    condition = "connect"
    retry = Retry.NOTHING_SENT


class StaleConnection(UpstreamError):
    """A kept-alive connection turned out closed before a byte of the response."""

    phase = "response"
    retry = Retry.IF_REUSED


class BadResponse(UpstreamError):
    """The response breaks the rules of HTTP, or the server hung up before it was whole."""

    phase = "response"
    condition = "reset"
    retry = Retry.IF_IDEMPOTENT


class ResponseTimeout(UpstreamError):
    """The response head did not come within the response timeout."""

    status = 504
    ending = "server timed out"
    phase = "response"
    condition = "timeout"
    retry = Retry.IF_IDEMPOTENT


class SendTimeout(UpstreamError):
    """The server took no byte of the request for the idle timeout."""

    status = 504
    ending = "server timed out"
    phase = "request body"
    condition = "timeout"
    retry = Retry.IF_IDEMPOTENT


class TruncatedBody(UpstreamError):
    """The server's body ended early after the head was passed on: the client's connection must be aborted."""

    phase = "body"
    ending = "server broke off"


class CapacityError(ProxyError):
    """No server may take the request now."""

    status = 503
    phase = "pick"
    ending = "no server"
    retry_after_s = 1  # for the client's Retry-After: such a shortage usually lasts for moments


class NoUsableServer(CapacityError):
    """Every server of the pool is unusable, or was tried in this exchange."""


class PoolFull(CapacityError):
    """Every usable server is at its `max_connections`."""


class LimitReached(PoolFull):
    """The pool has `breaker.in_flight` requests in flight."""


class SessionRefused(CapacityError):
    """The server of the client's session cannot take the request, and no other server may."""


class QueueFull(CapacityError):
    """The pool's queue is full: as many requests wait for a server as its limit allows."""

    phase = "queue"


class QueueTimeout(CapacityError):
    """No server became free for the request in time."""

    phase = "queue"


class ChecksBusy(CapacityError):
    """So many passwords are being checked that a further one would wait for long."""

    phase = "access"


class Undecided(CapacityError):
    """The server that decides who may use the route has not decided."""

    phase = "access"
    ending = "refused"


class OutOfDescriptors(CapacityError):
    """This host has no socket for a new connection: no descriptor, no memory for sockets, or no local port is left.

    It says nothing about the server, so it never counts against one.
    """

    phase = "connect"


class Overloaded(CapacityError):
    """This worker has more requests than it can serve. A request that is refused early costs least."""

    phase = "overload"
    ending = "overloaded"
