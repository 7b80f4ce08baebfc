"""Starts and sweeps that are broken off. They are done in Python alone, with and without the compiled module."""
from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared import rows
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from tests.unit.shared.breaking import Break, broken_off, moments
from tests.unit.shared.processes import Child, Master


def claim(ledger: Ledger, slot: int) -> None:
    with ledger.locked():
        ledger.claim(slot)


def totals(ledger: Ledger) -> list[int]:
    return ledger.totals.tolist()


def rows_in_use(segment: Segment) -> int:
    return sum(segment.cells[segment.layout.row(row) + at.R_PID] != 0 for row in range(segment.layout.rows))


@pytest.mark.parametrize("pids", [(1, 1, 0, 1), (0, 0, 0, 0)], ids=["three workers", "no worker"])
def test_all_totals_are_counted_anew_from_the_rows_in_use(master: Master, pids: tuple[int, ...]) -> None:
    segment = attach_or_create(master.pid, Layout(4, 5, 3, own_lines=1, answer_times=1))
    cells, layout, rng = segment.cells, segment.layout, random.Random(3)
    expected: dict[int, int] = {}
    for row, pid in enumerate(pids):
        cells[layout.row(row) + at.R_PID] = pid
        for array, totals in ((layout.row_array(row, at.A_CLAIMS), layout.column(at.C_TOTAL)),
                              (layout.row_array(row, at.A_PENALTIES), layout.column(at.C_PENALTY)),
                              (layout.row_array(row, at.A_UNANSWERED), layout.column(at.C_UNANSWERED)),
                              (layout.own_line_array(row, at.O_WAITING), layout.column(at.C_OWN_WAITING)),
                              (layout.row_array(row, at.A_WAITING),
                               slice(layout.pool(0) + at.P_WAITING, layout.pool(3), layout.pool(1) - layout.pool(0)))):
            for cell, total in zip(range(array.start, array.stop), range(*totals.indices(len(cells))), strict=True):
                cells[cell] = rng.choice((0, 0, 1, 7, 1 << 40)) if row != 1 else 0
                cells[total] = 99  # wrong
                expected[total] = expected.get(total, 0) + (cells[cell] if pid else 0)
    for slot in range(5):  # what other balancers have there is no row's, and is added
        cells[layout.column(at.C_ELSEWHERE).start + slot] = slot
        expected[layout.column(at.C_PENALTY).start + slot] += slot
    rows.Rows(segment).recount()
    assert {total: cells[total] for total in expected} == expected


@pytest.fixture
def small(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(4, 2, 2))


@pytest.mark.parametrize("how", Break)
def test_a_worker_broken_off_at_any_moment_of_its_start_leaves_nothing(small: Segment, how: Break) -> None:
    """While it takes its row it gives back those of the dead, who have claims each time."""
    survivor = Ledger(small)
    claim(survivor, 1)

    def die_with_claims() -> None:
        mine = Ledger(small)
        claim(mine, 0)
        claim(mine, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    def prepare() -> Callable[[], object]:
        return lambda: Ledger(small)

    Child(die_with_claims).wait()
    found = moments(how, prepare, small.text, every=12)
    assert len(found) > 15
    for instruction in found:
        survivor.reclaim_dead()
        Child(die_with_claims).wait()
        broken_off(instruction, how, prepare)
        survivor.reclaim_dead()
        assert totals(survivor) == [0, 1], f"broken off at instruction {instruction}"
        assert rows_in_use(small) == 1


@pytest.mark.parametrize("how", Break)
def test_a_sweep_broken_off_at_any_moment_is_made_whole_by_the_next(small: Segment, how: Break) -> None:
    survivor = Ledger(small)

    def die_with_claims() -> None:
        mine = Ledger(small)
        claim(mine, 0)
        claim(mine, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    def prepare() -> Callable[[], object]:
        sweeper = Ledger(small)
        Child(die_with_claims).wait()
        return sweeper.reclaim_dead

    found = moments(how, prepare, small.text, every=12)
    assert len(found) > 15
    survivor.reclaim_dead()
    for instruction in found:
        broken_off(instruction, how, prepare)
        survivor.reclaim_dead()
        assert totals(survivor) == [0, 0], f"broken off at instruction {instruction}"
        assert rows_in_use(small) == 1


def test_a_worker_that_starts_looks_for_ended_siblings_without_the_lock(
    small: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read of /proc for each row, and with hundreds of workers all requests would wait for each start."""
    first = Ledger(small)
    lock, found = first._lock, []

    def look(pid: int, started: int) -> bool:
        result = lock._trylock(lock._mutex)
        found.append(result)
        if not result:
            lock.release()
        return True

    monkeypatch.setattr(rows, "is_alive", look)
    Ledger(small)
    first.reclaim_dead()
    assert found == [0, 0, 0]
