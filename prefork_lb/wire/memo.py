"""Remembering the results of a pure function whose arguments come again and again."""
from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


_PLACES = 1024  # for keys that came once; a power of two


class Memo(Generic[K, V]):
    """Calls `function` twice at most for each key that comes again soon. Nobody may change what comes back.

    A result is kept when its key comes for the second time. Keys that come once would push out those that come again, and
    what they hold would lie in memory, cold, until it is thrown away (the doorkeeper of TinyLFU: Einziger, Friedman, Manes,
    ACM Transactions on Storage 13, 2017).

    Clients choose the keys, so all that is kept has a bound in bytes: `size` tells how many a key and its result take. Beyond
    `largest` they are not kept. When all together would exceed `most_bytes`, all are forgotten: that is cheaper than to know
    which was used last, and what is worth remembering is back at once. Safe among threads: each step is one of a dict or a
    list. Two threads that add at once may count one entry only, so the bound is exact to a few entries.
    """

    def __init__(self, function: Callable[[K], V], size: Callable[[K], int], most_bytes: int = 4 << 20,
                 largest: int = 32 << 10) -> None:
        self._function = function
        self._size = size
        self._most_bytes = most_bytes
        self._largest = largest
        self._known: dict[K, V] = {}
        self._held = 0  # bytes
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
        else:
            self._keep(key, value)
        return value

    def _keep(self, key: K, value: V) -> None:
        size = self._size(key)
        if size > self._largest:
            return
        if self._held + size > self._most_bytes:
            self._known.clear()
            self._held = 0
        self._known[key] = value
        self._held += size
