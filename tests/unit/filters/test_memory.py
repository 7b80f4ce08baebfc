"""The integers of a filter."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from prefork_lb.filters import Memory


def test_integers_are_read_written_and_changed() -> None:
    memory = Memory()
    memory[3] = 5
    assert (memory.add(3, -7), memory[3], memory.change(3, lambda value: value * value), memory[0]) == (-2, -2, 4, 0)


def test_a_change_is_made_under_the_lock_and_a_failed_one_not_at_all() -> None:
    held = []

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        held.append(True)
        try:
            yield
        finally:
            held.pop()

    memory, cells = Memory(), [0] * 1024
    memory.use(cells, lock)
    memory.change(1, lambda value: len(held))
    with pytest.raises(ZeroDivisionError):
        memory.change(1, lambda value: 1 // 0)
    with pytest.raises(OverflowError):
        memory.change(1, lambda value: 1 << 63)
    assert (cells[1], held) == (1, [])


@pytest.mark.parametrize("index", [-1, 1024])
def test_no_index_leads_elsewhere(index: int) -> None:
    memory = Memory()
    with pytest.raises(IndexError):
        memory[index]
    with pytest.raises(IndexError):
        memory[index] = 1
    with pytest.raises(IndexError):
        memory.add(index)
