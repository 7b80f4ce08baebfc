"""Content negotiation: which of a few media types a client prefers, by its Accept (RFC 9110 12.5.1)."""
from __future__ import annotations

import re
from collections.abc import Sequence

# A comma or semicolon in a quoted string separates nothing. The quantifiers give nothing back: no input takes quadratic time.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_QUALITY = re.compile(r"q=(0(?:\.[0-9]*)?|1(?:\.0*)?)")


def preferred(accept: str, types: Sequence[str]) -> str:
    """The one of `types` (lower case, without parameters) that fits best; the first one when none is acceptable.

    A range with parameters fits no type. One whose quality is no number from 0 to 1 counts for nothing.
    """
    qualities = _qualities(accept)
    best, best_rank = types[0], (0.0, 0)
    for each in types:
        ranges = ("*/*", each.partition("/")[0] + "/*", each)
        # The most specific range that names the type decides; a 0 there forbids it, whatever the others say.
        specificity = next((index for index in (2, 1, 0) if ranges[index] in qualities), None)
        if specificity is not None:
            rank = qualities[ranges[specificity]], specificity
            if rank[0] and rank > best_rank:
                best, best_rank = each, rank
    return best


def _qualities(accept: str) -> dict[str, float]:
    """The media ranges without parameters by their quality; the greatest one of a range that comes twice."""
    found: dict[str, float] = {}
    for member in _QUOTED.sub('"', accept.lower()).split(","):
        media_range, *parameters = (part.strip(" \t") for part in member.split(";"))
        quality = _QUALITY.fullmatch(parameters[0]) if len(parameters) == 1 else None
        if quality or not parameters:
            found[media_range] = max(found.get(media_range, 0.0), float(quality[1]) if quality else 1.0)
    return found
