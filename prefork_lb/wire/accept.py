"""Which of several media types a client wants (Accept, RFC 9110 12.5.1)."""
from __future__ import annotations

import re
from collections.abc import Sequence

_MEMBER = re.compile(r"\s*([^\s;,/]+/[^\s;,/]+)\s*(?:;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?", re.IGNORECASE)


def preferred(accept: str, types: Sequence[str]) -> str:
    """The one of `types` that `accept` gives the highest weight, the first one of several, or of all when it wants none of them.

    What is no member of the field's grammar is left out, and so are media ranges with parameters: our types have none.
    """
    weights: dict[str, float] = {}
    for member in accept.split(","):
        if (found := _MEMBER.fullmatch(member)) is not None:
            weights.setdefault(found[1].lower(), float(found[2] or 1))
    return max(types, key=lambda name: _weight(name, weights))


def _weight(name: str, weights: dict[str, float]) -> float:
    """That of the range that says most of the type."""
    for kind in (name, f"{name.partition('/')[0]}/*", "*/*"):
        if kind in weights:
            return weights[kind]
    return 0.0
