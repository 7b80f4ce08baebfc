"""The query of a request's target, as names and values with `&` between them. All bytes stay as they came."""
from __future__ import annotations

from collections.abc import Iterator


def parameters(target: bytes, name: bytes) -> Iterator[bytes]:
    """The values of all parameters of this name in the query of a target, in order."""
    query = target.partition(b"?")[2]
    if name in query:
        for pair in query.split(b"&"):
            found, _, value = pair.partition(b"=")
            if found == name:
                yield value
