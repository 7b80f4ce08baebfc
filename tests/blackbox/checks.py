"""The expectation language: each check says what is wrong with an outcome, or nothing."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .outcome import Outcome
from .wire import Message


class Check(Protocol):
    """One expectation; alternatives are made with `AnyOf` and `All`."""

    def problems(self, outcome: Outcome) -> list[str]:
        """What this outcome lacks; empty when it is as expected."""
        ...


def _data(data: bytes | Callable[[], bytes]) -> bytes:
    return data if isinstance(data, bytes) else data()


@dataclass(frozen=True)
class AnyOf:
    """At least one of these holds: the RFC leaves a choice."""

    choices: tuple[Check, ...]

    def __init__(self, *choices: Check) -> None:
        object.__setattr__(self, "choices", choices)

    def problems(self, outcome: Outcome) -> list[str]:
        found = [check.problems(outcome) for check in self.choices]
        return [] if any(not lines for lines in found) else [" OR ".join(", ".join(lines) for lines in found)]


@dataclass(frozen=True)
class All:
    """Every one of these holds."""

    parts: tuple[Check, ...]

    def __init__(self, *parts: Check) -> None:
        object.__setattr__(self, "parts", parts)

    def problems(self, outcome: Outcome) -> list[str]:
        return [line for check in self.parts for line in check.problems(outcome)]


@dataclass(frozen=True)
class Status:
    """The n-th response has one of these status codes."""

    allowed: tuple[int, ...]
    nth: int

    def __init__(self, *allowed: int, nth: int = 0) -> None:
        object.__setattr__(self, "allowed", allowed)
        object.__setattr__(self, "nth", nth)

    def problems(self, outcome: Outcome) -> list[str]:
        if len(outcome.replies) <= self.nth:
            return [f"no response {self.nth + 1}, expected {self.allowed}"]
        status = outcome.replies[self.nth].status
        return [] if status in self.allowed else [f"status {status}, expected {self.allowed}"]


@dataclass(frozen=True)
class Refused:
    """Answered with one of these, or not at all; then closed; the origin saw no whole request of it."""

    allowed: tuple[int, ...]

    def __init__(self, *allowed: int) -> None:
        object.__setattr__(self, "allowed", allowed or (400,))

    def problems(self, outcome: Outcome) -> list[str]:
        lines = []
        statuses = [reply.status for reply in outcome.replies]
        if len(statuses) > 1 or any(status not in self.allowed for status in statuses):
            lines.append(f"answered {statuses}, expected refusal {self.allowed}")
        if outcome.closed == "open":
            lines.append("connection left open")
        if outcome.whole_requests():
            lines.append(f"{len(outcome.whole_requests())} requests reached the origin")
        return lines


@dataclass(frozen=True)
class Closed:
    """The proxy ended the client's connection."""

    def problems(self, outcome: Outcome) -> list[str]:
        return ["connection left open"] if outcome.closed == "open" else []


@dataclass(frozen=True)
class Served:
    """So many whole responses with this status; fewer only if the last one says Connection: close and the end came."""

    count: int
    status: int = 200

    def problems(self, outcome: Outcome) -> list[str]:
        whole = outcome.whole_replies()
        lines = [f"status {reply.status}, expected {self.status}" for reply in whole if reply.status != self.status]
        if len(whole) < self.count:
            announced = bool(whole) and b"close" in whole[-1].tokens("connection")
            # An HTTP/1.0 response without keep-alive announces its end too.
            announced |= bool(whole) and whole[-1].start[0] == b"HTTP/1.0" and not whole[-1].tokens("connection")
            if not (announced and outcome.closed == "end" and len(whole) == len(outcome.replies)):
                lines.append(f"{len(whole)} whole responses, expected {self.count}, and no close announced")
        return lines


@dataclass(frozen=True)
class Requests:
    """The origin received so many whole requests of this case (from `least` to `count`)."""

    count: int
    least: int | None = None

    def problems(self, outcome: Outcome) -> list[str]:
        seen = len(outcome.whole_requests())
        least = self.count if self.least is None else self.least
        if least <= seen <= self.count:
            return []
        return [f"origin saw {seen} whole requests, expected {least}..{self.count}"]


@dataclass(frozen=True)
class Heads:
    """At most so many heads of this case reached the origin, whole requests or not."""

    most: int

    def problems(self, outcome: Outcome) -> list[str]:
        seen = len(outcome.requests)
        return [] if seen <= self.most else [f"origin saw {seen} heads, expected at most {self.most}"]


@dataclass(frozen=True)
class NoStrays:
    """Nothing without a case's word reached the origin meanwhile (for cases that run alone)."""

    def problems(self, outcome: Outcome) -> list[str]:
        return [f"stray at the origin {stray.raw_head[:80]!r}" for stray in outcome.strays]


@dataclass(frozen=True)
class Request:
    """The n-th request at the origin, seen by a predicate; `what` says what the predicate wants."""

    what: str
    holds: Callable[[Message], bool]
    nth: int = 0

    def problems(self, outcome: Outcome) -> list[str]:
        if len(outcome.requests) <= self.nth:
            return [f"no request {self.nth + 1} at the origin: {self.what}"]
        return [] if self.holds(outcome.requests[self.nth]) else [f"at the origin: not {self.what}"]


@dataclass(frozen=True)
class Reply:
    """The n-th response at the client, seen by a predicate."""

    what: str
    holds: Callable[[Message], bool]
    nth: int = 0

    def problems(self, outcome: Outcome) -> list[str]:
        if len(outcome.replies) <= self.nth:
            return [f"no response {self.nth + 1}: {self.what}"]
        return [] if self.holds(outcome.replies[self.nth]) else [f"at the client: not {self.what}"]


@dataclass(frozen=True)
class Truncated:
    """The cut is visible: a gateway error, nothing, or a response that its own framing shows to be incomplete."""

    errors: tuple[int, ...] = (502, 504)

    def problems(self, outcome: Outcome) -> list[str]:
        for reply in outcome.replies:
            if reply.status in self.errors:
                return []
            if reply.complete and reply.framing != "close":
                return [f"a {reply.status} with {len(reply.body)} bytes looks complete"]
            if reply.framing == "close" and outcome.closed != "reset":
                return ["a response that ends with an orderly close looks complete"]
        return [] if outcome.closed != "open" else ["connection left open"]


@dataclass(frozen=True)
class Malformed:
    """The client received no response in HTTP/1, but was not left hanging."""

    def problems(self, outcome: Outcome) -> list[str]:
        return [] if not outcome.replies and outcome.closed != "open" else ["a response came, or nothing at all"]


@dataclass(frozen=True)
class OriginClosed:
    """The proxy closed the origin's held connection."""

    def problems(self, outcome: Outcome) -> list[str]:
        return [] if outcome.origin_closed else ["the origin's connection was left open"]


def has(name: str, *values: bytes, nth: int = 0) -> Request:
    """The request has this field, with exactly these lines of values when given."""
    return Request(f"{name}: {values or 'any'}",
                   lambda m: m.all(name) == list(values) if values else bool(m.all(name)), nth)


def lacks(*names: str, nth: int = 0) -> Request:
    return Request(f"without {', '.join(names)}", lambda m: not any(m.all(name) for name in names), nth)


def target(*allowed: bytes, nth: int = 0) -> Request:
    """The request's target is one of these; `{case}` stands for the case's word (the runner puts it back)."""
    return Request(f"target {allowed}", lambda m: m.target in allowed, nth)


def sent_body(data: bytes | Callable[[], bytes], nth: int = 0) -> Request:
    return Request("that body, whole", lambda m: m.complete and m.body == _data(data), nth)


def reply_has(name: str, *values: bytes, nth: int = 0) -> Reply:
    return Reply(f"{name}: {values or 'any'}",
                 lambda m: m.all(name) == list(values) if values else bool(m.all(name)), nth)


def reply_lacks(*names: str, nth: int = 0) -> Reply:
    return Reply(f"without {', '.join(names)}", lambda m: not any(m.all(name) for name in names), nth)


def body(data: bytes | Callable[[], bytes], nth: int = 0) -> Reply:
    return Reply("that body, whole", lambda m: m.complete and m.body == _data(data), nth)


def interims(*statuses: int) -> Reply:
    return Reply(f"after {statuses}", lambda m: [interim.status for interim in m.interims] == list(statuses))


def well_formed(outcome: Outcome) -> list[str]:
    """What every case demands: nothing ambiguous goes either way."""
    lines = []
    for request in outcome.requests:
        lines += [f"at the origin: {problem}" for problem in request.problems]
    for reply in outcome.replies:
        lines += [f"at the client: {problem}" for problem in reply.problems]
    if outcome.malformed:
        lines.append(f"at the client: {outcome.malformed}")
    elif outcome.leftover:
        lines.append(f"at the client: bytes beyond the responses {outcome.leftover[:60]!r}")
    return lines
