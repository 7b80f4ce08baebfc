"""What came of a check, in the operator's words."""
from __future__ import annotations

import ssl
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead, RemoteDisconnected

import requests
from urllib3.exceptions import TimeoutError as PoolTimeout

from prefork_lb.errors import ConnectTimeout, UpstreamError
from prefork_lb.net.failures import failure_text


def _chain(exc: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = exc
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def is_closing(exc: BaseException) -> bool:
    """Whether the server closed the connection."""
    return any(isinstance(each, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError) for each in _chain(exc))


def why(exc: Exception, timeout_s: float) -> str:
    """What a check failed for. `timeout_s` is the time that it had, in seconds."""
    if isinstance(exc, ValueError):  # the probe cannot be made
        return str(exc)
    chain = list(_chain(exc))
    for each in chain:
        if isinstance(each, UpstreamError):
            return f"{each} within {timeout_s:g} s" if isinstance(each, ConnectTimeout) else str(each)
        if isinstance(each, requests.Timeout | PoolTimeout | TimeoutError):
            return f"no answer within {timeout_s:g} s"
        if isinstance(each, IncompleteRead):
            return "the body ended early"
    for each in reversed(chain):
        if isinstance(each, RemoteDisconnected):
            return "connection closed without an answer"
        if isinstance(each, HTTPException):
            return f"no HTTP answer: {short(str(each) or type(each).__name__)}"
        if isinstance(each, OSError) and each.strerror:
            return lower(failure_text(each))
    return f"{type(exc).__name__}: {exc}"


def ranges(numbers: frozenset[int]) -> str:
    """ "200-399, 404" """
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def short(text: str) -> str:
    """Quoted, and cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def lower(text: str) -> str:
    """With a small letter at its begin, unless it begins with an abbreviation."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def duration(seconds: float) -> str:
    """In milliseconds or seconds."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
