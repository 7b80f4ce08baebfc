"""The compiled module of the statistics refuses what lies outside of its block."""
from __future__ import annotations

import gc
from typing import Any

import pytest

from prefork_lb.native.loader import native_tally

MODULE = native_tally()
pytestmark = pytest.mark.skipif(MODULE is None, reason="prefork_lb.native.tally was not built: it takes a C compiler")


def tally(cells: int = 8 + 2 * 8 + 24, **changed: Any) -> Any:
    places: dict[str, Any] = {"servers": (8, 8), "pools": (24, 24), "server": (5, 6, 7), "pool": (6, 22), "bounds": (0.1, 1.0)}
    places.update(changed)
    assert MODULE is not None
    return MODULE.Tally(memoryview(bytearray(8 * cells)).cast("q"), *places.values())


def test_an_answer_is_counted_in_the_cells_that_were_named() -> None:
    assert MODULE is not None
    cells = memoryview(bytearray(8 * 48)).cast("q")
    counts = MODULE.Tally(cells, (8, 8), (24, 24), (5, 6, 7), (6, 22), (0.1, 1.0))
    counts.count_answer(1, 0, 204, 3, 5, 0.5)
    assert {place: number for place, number in enumerate(cells) if number} == {
        17: 1, 21: 3, 22: 5, 23: 500_000, 24 + 7: 1, 24 + 22: 500_000}
    del counts
    gc.collect()
    cells.release()


@pytest.mark.parametrize("arguments", [
    (-1, 0, 200), (2, 0, 200), (0, -1, 200), (0, 1, 200), (0, 0, 99), (0, 0, -1), (1 << 62, 0, 200)])
def test_nothing_outside_of_the_block_is_written(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(IndexError, match="no such server"):
        tally().count_answer(*arguments, 0, 0, 0.0)


@pytest.mark.parametrize("changed", [
    {"servers": (-1, 8)}, {"servers": (8, 0)}, {"pools": (7, 24)}, {"pools": (49, 24)}, {"server": (4, 6, 7)},
    {"server": (5, 6, 8)}, {"pool": (22, 22)}, {"pool": (-1, 22)}, {"pool": (6, 24)}, {"bounds": (0.1,) * 33}])
def test_places_that_lie_outside_of_a_block_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no such block"):
        tally(**changed)


@pytest.mark.parametrize("arguments", [
    (), (0,) * 5, ("a", 0, 200, 0, 0, 0.0), (0, 0, 200, 1 << 80, 0, 0.0), (0, 0, 200, 0, 0, "x")])
def test_arguments_of_another_kind_are_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, OverflowError)):
        tally().count_answer(*arguments)
    with pytest.raises(TypeError):
        tally(bounds=("x",))
