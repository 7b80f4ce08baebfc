"""The ring of uses of limits of a rate."""
from __future__ import annotations

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.rate_table import RateTable
from prefork_lb.shared.rate_uses import RateUses, ToldUses
from prefork_lb.shared.segment import Segment
from tests.unit.shared.processes import Master

ROOM = 16


@pytest.fixture
def told(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(4, 8, 8, rates=64, keys=32, filters=1, rate_uses=ROOM))


def test_each_use_is_read_once_by_key(told: Segment) -> None:
    table, uses = RateTable(told, Ledger(told), ToldUses(told)), RateUses(told)
    assert [table.take(key, 100, 100, 0) for key in (5, -7, 5, 5)] == [0, 0, 0, 100]  # what is refused uses nothing
    assert uses.news() == {5: 200, -7: 100} and uses.news() == {}
    table.take(5, 100, 100, 1000)
    assert uses.news() == {5: 100}
    assert RateUses(told).news() == {}, "who begins to read begins with what comes then"


def test_of_more_uses_than_there_is_room_the_last_ones_are_read(told: Segment) -> None:
    table, uses = RateTable(told, Ledger(told), ToldUses(told)), RateUses(told)
    for key in range(1, 41):
        table.take(key, 100, 0, 0)
    # One entry less than the room: a writer may be at work on the oldest.
    assert list(uses.news()) == list(range(41 - ROOM + 1, 41))


def test_the_ring_lies_in_no_other_part(told: Segment) -> None:
    layout = told.layout
    end = layout.rate_uses_start + ROOM * at.RATE_USE_CELLS
    assert layout.rates_start + 64 * at.RATE_CELLS == layout.rate_uses_start and end == layout.key_hashes.start


def test_keys_are_raised_and_never_lowered(told: Segment) -> None:
    ledger = Ledger(told)
    table = RateTable(told, ledger)
    table.raise_to({3: 1000, 4: 50}, now_ns=100)
    assert table.take(3, 10, 0, 100) == 900 and table.take(4, 10, 0, 100) == 0
    table.raise_to({3: 500}, now_ns=100)
    assert table.take(3, 10, 0, 100) == 900
    # In a full set the key that is least ahead gives way, and not to one that is less ahead.
    sets = 64 // at.RATES_IN_SET
    table.raise_to({sets * number: 1000 + number for number in range(1, 9)}, now_ns=100)
    table.raise_to({sets * 9: 1001, sets * 10: 2000}, now_ns=100)
    assert [table.take(sets * number, 10, 0, 100) > 0 for number in (2, 8, 10, 9)] == [True, True, True, False]
