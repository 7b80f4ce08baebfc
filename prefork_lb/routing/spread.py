"""A share of requests, spread evenly: never by chance, and in no short pattern either.

The multiples of the golden ratio, without their whole part, lie more evenly than any others: each new one falls into one of the
greatest gaps that the ones before have left (Knuth, TAOCP 3, 6.4). So of n requests a share of p gets p * n, give or take a few.
A fixed cycle would do as well, but a page with as many files as the cycle has steps would always meet the same step.
"""
from __future__ import annotations

import itertools

_GOLDEN = 0x9E3779B97F4A7C15  # 2 ** 64 divided by the golden ratio
_MASK = (1 << 64) - 1


class Spread:
    """An endless sequence; each worker has its own, and several threads may take from it."""

    def __init__(self, start: int) -> None:
        """Sequences with other starts are out of step with each other."""
        self._turns = itertools.count(start)  # `next` of it is one step for threads

    def below(self, whole: int) -> int:
        """The next number from 0 to `whole` - 1; each comes equally often."""
        return (next(self._turns) * _GOLDEN & _MASK) * whole >> 64
