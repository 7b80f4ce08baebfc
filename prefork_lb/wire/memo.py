"""Remembering the results of a pure function whose arguments come again and again."""
from __future__ import annotations

from collections.abc import Callable, Hashable, Sized
from typing import Generic, Protocol, TypeVar


class _Key(Hashable, Sized, Protocol):
    """What can be looked up and measured: bytes, a tuple."""


K = TypeVar("K", bound=_Key)
V = TypeVar("V")


_PLACES = 1024  # for keys that came once; a power of two


class Memo(Generic[K, V]):
    """Calls `function` twice at most for each key that comes again soon; what comes back must not be changed by anybody.

    A result is kept when its key comes for the second time: keys that come once would push out those that come again, and
    what they hold would lie in memory, cold, until it is thrown away (the doorkeeper of TinyLFU: Einziger, Friedman, Manes,
    ACM Transactions on Storage 13, 2017). Bounded: keys whose `size` (their length, if nothing else is said) is above
    `longest` are not kept, and when `most` are there all are forgotten. That is cheaper than knowing which was used last, and
    what is worth remembering is back at once. Safe among threads: each step is one of a dict or a list.
    """

    def __init__(self, function: Callable[[K], V], most: int = 512, longest: int = 2048,
                 size: Callable[[K], int] = len) -> None:
        self._function = function
        self._most = most
        self._longest = longest
        self._size = size
        self._known: dict[K, V] = {}
        self._came = [0] * _PLACES  # the hash of the key that came last to each place

    def __call__(self, key: K) -> V:
        known = self._known
        if key in known:
            try:
                return known[key]
            except KeyError:  # another thread has just cleared it
                pass
        value = self._function(key)
        number = hash(key)
        if self._came[number % _PLACES] != number:
            self._came[number % _PLACES] = number
        elif self._size(key) <= self._longest:
            if len(known) >= self._most:
                known.clear()
            known[key] = value
        return value
