"""Sets of statuses as the configuration writes them: numbers, and ranges like "500-599"."""
from __future__ import annotations

import re
from collections.abc import Sequence

from prefork_lb.errors import shown

_RANGE = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")


def parse_statuses(items: Sequence[int | str], least: int = 100) -> frozenset[int]:
    """The statuses that are meant, none below `least`. Raises ValueError with what was found and what is expected."""
    found: set[int] = set()
    for item in items:
        match = _RANGE.fullmatch(str(item))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(f'{shown(item)} is no status; expected a number from {least} to 599, or a range such as "500-599"')
        if first < least:
            raise ValueError(f"{shown(item)} is not in {least}..599")
        found.update(range(first, last + 1))
    return frozenset(found)
