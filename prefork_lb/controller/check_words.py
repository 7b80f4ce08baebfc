"""The outcome of a check in words, for the operator."""
from __future__ import annotations

from prefork_lb.errors import ConnectTimeout, ProxyError
from prefork_lb.net.address import Address
from prefork_lb.net.stream import StreamTimeout


def why(exc: Exception, address: Address, timeout_s: float) -> str:
    """Why a check of the server at `address` failed. `timeout_s` is the time limit of the check, in seconds."""
    if isinstance(exc.__cause__, StreamTimeout):
        return f"no answer within {timeout_s:g} s"
    if isinstance(exc, ProxyError):
        text = uncapitalised(str(exc).removeprefix(f"{address}: "))
        # The dialer says how much time was left for it.
        return f"{text.rpartition(' within ')[0]} within {timeout_s:g} s" if isinstance(exc, ConnectTimeout) else text
    if isinstance(exc, ValueError):  # the probe cannot be made
        return str(exc)
    return f"{type(exc).__name__}: {exc}"


def ranges(numbers: frozenset[int]) -> str:
    """The numbers in words, as in "200-399, 404"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def short(text: str) -> str:
    """The text in quotes, cut after 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def uncapitalised(text: str) -> str:
    """The text with a small first letter, unless it begins with an abbreviation."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def duration(seconds: float) -> str:
    """A duration in words: milliseconds, or seconds from one on."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
