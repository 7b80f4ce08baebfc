"""Integers that a filter has in all workers together."""
from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

CELLS = 1024

_MOST = (1 << 63) - 1


class Cells(Protocol):
    """Integers by index."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


Lock = Callable[[], contextlib.AbstractContextManager[None]]


class Memory:
    """1,024 signed 64-bit integers, zero at first, for all filters of the same class and settings in all workers. They outlive
    workers and reloads, not the instance. What is written before the filter is in use (in `__init__`) is lost.
    """

    def __init__(self, cells: Cells | None = None, lock: Lock = contextlib.nullcontext) -> None:
        """Without `cells` the integers are this object's alone, until `use`."""
        self._cells: Cells = [0] * CELLS if cells is None else cells
        self._lock = lock

    def use(self, cells: Cells, lock: Lock) -> None:
        """From now on the integers are these, which `lock` guards."""
        self._cells, self._lock = cells, lock

    def __getitem__(self, index: int) -> int:
        return self._cells[_checked(index)]

    def __setitem__(self, index: int, value: int) -> None:
        self._cells[_checked(index)] = value

    def add(self, index: int, amount: int = 1) -> int:
        """Add to an integer; no change of another worker comes between. Return the sum."""
        return self.change(index, lambda value: value + amount)

    def change(self, index: int, function: Callable[[int], int]) -> int:
        """Make `function` of an integer, under the lock that all workers need; return the result. It must be quick, and not wait.

        If it raises, nothing is changed. Raises OverflowError for what no 64 bits hold.
        """
        index = _checked(index)
        with self._lock():
            value = function(self._cells[index])
            if not -_MOST - 1 <= value <= _MOST:
                raise OverflowError(f"{value} is no signed 64-bit integer")
            self._cells[index] = value
        return value


def _checked(index: int) -> int:
    if not 0 <= index < CELLS:
        raise IndexError(f"a filter has the integers 0 to {CELLS - 1}, not {index}")
    return index
