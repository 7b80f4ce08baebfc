"""A bounded cache for the results of a pure function whose arguments repeat."""
from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


_PLACES: Final = 1024  # for keys that came once; a power of two
# After so many keys in a row that were not known, only one key of `_SKIPPED` + 1 is looked up: a look-up costs as much as a good
# part of the function.
_PATIENCE: Final = 256
_SKIPPED: Final = 7


class Memo(Generic[K, V]):
    """Calls `function` at most twice for each key that comes again soon, unless nearly all keys are new. Callers must not change
    the results.

    The result is kept from the second use of a key on. Keys that come only once would push out the others, and their results
    would take memory without use (the doorkeeper of TinyLFU: Einziger, Friedman, Manes, ACM Transactions on Storage 13, 2017).

    Clients choose the keys, so the memory is bounded: `size` returns how many bytes a key and its result take. An entry larger
    than `largest` is not kept. When all entries together would exceed `most_bytes`, all are dropped: that is cheaper than a
    record of the last use, and frequent keys are soon back. Threads may share it: each step is one operation of a dict or a
    list. Two threads that add at the same time may count only one entry, so the bound is exact to a few entries.
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
        self._unknown = 0  # keys in a row that were not known

    def __call__(self, key: K) -> V:
        known = self._known
        self._unknown = unknown = self._unknown + 1
        if unknown > _PATIENCE and unknown & _SKIPPED:
            return self._function(key)
        if key in known:
            self._unknown = 0
            try:
                return known[key]
            except KeyError:  # another thread has just dropped all entries
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
