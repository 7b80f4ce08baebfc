"""Cookies in the Cookie fields of a request (RFC 6265 4.2.1 and 5.4): one found by its name, or taken out.

Clients should send one Cookie field with pairs that `; ` separates; some send several fields (HTTP/2 gateways do), or other
blanks. Both are understood. Values are bytes as they came, quotes and all: RFC 6265 makes quotes a part of the value, and no
browser lets a semicolon stand between them. Each function looks at each byte a fixed number of times.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

_BLANKS = b" \t"


def cookie(values: Sequence[bytes], name: bytes) -> bytes | None:
    """The value of the first cookie of this name in the Cookie fields; None: there is none. Names are case-sensitive."""
    return next(cookies(values, name), None)


def cookies(values: Sequence[bytes], name: bytes) -> Iterator[bytes]:
    """The values of all cookies of this name, in order: there may be one for each of several paths (RFC 6265 5.4)."""
    for value in values:
        if name in value:
            for pair in value.split(b";"):
                found, equals, content = pair.partition(b"=")
                if equals and found.strip(_BLANKS) == name:
                    yield content.strip(_BLANKS)


def without_cookie(values: Sequence[bytes], name: bytes) -> list[bytes]:
    """The Cookie fields without the cookies of this name; a field that has no other is left out. The rest stays as it came."""
    kept = []
    for value in values:
        if name not in value:
            kept.append(value)
            continue
        pairs = value.split(b";")
        others = [pair for pair in pairs if not _is_named(pair, name)]
        if len(others) == len(pairs):
            kept.append(value)
        elif any(pair.strip(_BLANKS) for pair in others):
            kept.append(b";".join(others).strip(_BLANKS))
    return kept


def _is_named(pair: bytes, name: bytes) -> bool:
    found, equals, _ = pair.partition(b"=")
    return bool(equals) and found.strip(_BLANKS) == name
