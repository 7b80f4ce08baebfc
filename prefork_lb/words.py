"""Numbers as messages and commands write them."""
from __future__ import annotations


def count(number: int, what: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {what}{'s' if number != 1 else ''}"
