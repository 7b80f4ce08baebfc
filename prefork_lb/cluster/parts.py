"""How a limit over all balancers is divided among them."""
from __future__ import annotations

from collections.abc import Sequence


def divide(limit: int, needs: Sequence[int]) -> list[int]:
    """Each balancer's part of a limit, by what each needs. The parts add up to the limit.

    Everybody gets what it needs, and an even part of what is left. If the limit is less than all need, those that need less than
    an even part get what they need, and the others divide the rest evenly.
    """
    parts = [0] * len(needs)
    left, wanting = limit, sorted(range(len(needs)), key=lambda index: (needs[index], index))
    while wanting:
        each = left // len(wanting)
        if needs[wanting[0]] > each:
            break
        first = wanting.pop(0)
        parts[first] = needs[first]
        left -= needs[first]
    takers = sorted(wanting) or range(len(needs))
    for place, index in enumerate(takers):
        parts[index] += left // len(takers) + (place < left % len(takers))
    return parts


def part_alone(limit: int, balancers: int, place: int) -> int:
    """What one of so many balancers may use when it hears of no other; `place` is its place among them. One is the least."""
    return max(1, limit // balancers + (place < limit % balancers))


def rounded_need(need: int, limit: int, balancers: int) -> int:
    """What a balancer says that it needs: in steps, so that parts do not change with every request."""
    step = max(1, limit // (4 * balancers))
    return -(-need // step) * step
