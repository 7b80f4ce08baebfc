"""Expectations in words, for lists and reports."""
from __future__ import annotations

from .case import Case
from .checks import (
    All,
    AnyOf,
    Check,
    Closed,
    Heads,
    Malformed,
    NoStrays,
    OriginClosed,
    Refused,
    Reply,
    Request,
    Requests,
    Served,
    Status,
    Truncated,
)


def _codes(codes: tuple[int, ...]) -> str:
    return "/".join(str(code) for code in codes)


def in_words(check: Check) -> str:
    """One check as a phrase."""
    match check:
        case AnyOf(choices=choices):
            return "(" + " or ".join(in_words(choice) for choice in choices) + ")"
        case All(parts=parts):
            return " and ".join(in_words(part) for part in parts)
        case Status(allowed=allowed, nth=nth):
            return f"{_codes(allowed)}" + (f" for response {nth + 1}" if nth else "")
        case Refused(allowed=allowed):
            return f"refused with {_codes(allowed)} or a bare close, then closed, nothing whole at the origin"
        case Served(count=count, status=status):
            return f"{count} x {status} (fewer if Connection: close is said)"
        case Requests(count=count, least=least):
            return f"{count if least in (None, count) else f'{least} to {count}'} requests at the origin"
        case Heads(most=most):
            return f"at most {most} heads at the origin"
        case Request(what=what, nth=nth):
            return f"origin gets{f' in request {nth + 1}' if nth else ''}: {what}"
        case Reply(what=what, nth=nth):
            return f"client gets{f' in response {nth + 1}' if nth else ''}: {what}"
        case Truncated(errors=errors):
            return f"{_codes(errors)}, or visibly cut"
        case Closed():
            return "closed"
        case NoStrays():
            return "no stray request at the origin"
        case OriginClosed():
            return "the origin's connection is closed"
        case Malformed():
            return "a bare close or no HTTP/1 answer"
    raise TypeError(f"no words for {check!r}")


def one_line(case: Case) -> str:
    """A case in one line."""
    return f"{case.name} [{case.basis}]: {'; '.join(in_words(check) for check in case.expect)}"
