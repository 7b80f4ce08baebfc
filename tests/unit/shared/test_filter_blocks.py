"""The blocks of filters in shared memory."""
from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from prefork_lb.shared import filter_blocks
from prefork_lb.shared import layout as at
from prefork_lb.shared.filter_blocks import FilterCounts, enter_filters, filter_counts
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from tests.unit.shared.conftest import Master


@pytest.fixture
def segment(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(4, 8, 8, rates=8, filters=3, sessions=4))


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_blocks, "now_ms", itertools.count(1000).__next__)


def test_a_filter_finds_its_integers_again(segment: Segment) -> None:
    ledger, other = Ledger(segment), Ledger(segment)
    first, second = enter_filters(segment, ledger, [("site:A", "{}"), ("site:A", '{"x": 1}')])
    first.cells[0], first.cells[1023], second.cells[0] = 1, 2, 3
    again, = enter_filters(segment, other, [("site:A", "{}")])
    assert (again.cells[0], again.cells[1023], len(again.cells)) == (1, 2, 1024)


def test_blocks_share_no_cell_with_what_lies_around_them(segment: Segment) -> None:
    cells, layout = segment.cells, segment.layout
    before, behind = cells[at.TABLE_START:layout.rates_start + 16].tolist(), cells[layout.sessions_start:].tolist()
    ledger = Ledger(segment, takes_row=False)
    for block in enter_filters(segment, ledger, [("site:A", "1"), ("site:B", "2"), ("site:C", "3")]):
        for cell in range(1024):
            block.cells[cell] = -1
    assert filter_counts(segment) == [FilterCounts(f"site:{name}", 0, 0) for name in "ABC"]
    assert (cells[at.TABLE_START:layout.rates_start + 16].tolist(), cells[layout.sessions_start:].tolist()) == (before, behind)


def test_the_one_entered_longest_ago_gives_way_and_leaves_nothing(segment: Segment, ticks: None) -> None:
    ledger = Ledger(segment)
    first, second, _ = enter_filters(segment, ledger, [("site:A", ""), ("site:B", ""), ("site:C", "")])
    first.cells[0] = second.cells[0] = 7
    second.count_late()
    enter_filters(segment, ledger, [("site:A", "")])
    new, = enter_filters(segment, ledger, [("site:D", "")])
    assert (new.cells[0], first.cells[0]) == (0, 7)
    assert [counts.name for counts in filter_counts(segment)] == ["site:A", "site:C", "site:D"]


@pytest.mark.parametrize("now_ms", [itertools.count(1000).__next__, lambda: 1000], ids=["one after another", "at once"])
def test_new_filters_take_no_block_of_one_that_stays_nor_of_each_other(
    segment: Segment, monkeypatch: pytest.MonkeyPatch, now_ms: Callable[[], int]
) -> None:
    monkeypatch.setattr(filter_blocks, "now_ms", now_ms)
    ledger = Ledger(segment)
    first, *_ = enter_filters(segment, ledger, [("site:A", ""), ("site:B", ""), ("site:C", "")])
    first.cells[0] = 7
    new = enter_filters(segment, ledger, [("site:D", ""), ("site:E", ""), ("site:A", "")])
    for block in new[:2]:
        block.cells[0] += 1
    assert [block.cells[0] for block in new] == [1, 1, 7]
    assert [counts.name for counts in filter_counts(segment)] == ["site:A", "site:D", "site:E"]


def test_what_went_wrong_is_counted_by_class(segment: Segment) -> None:
    first, second = enter_filters(segment, Ledger(segment), [("site:A", "1"), ("site:A", "2")])
    first.count_failure()
    second.count_failure()
    second.count_late()
    assert filter_counts(segment) == [FilterCounts("site:A", 2, 1)]
