"""A private copy of an instance's memory."""
from __future__ import annotations

from prefork_lb.shared import layout as at
from prefork_lb.shared.copying import private_copy
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from tests.unit.shared.processes import Master

ENTRIES = [PoolEntry("web", [ServerEntry("10.0.0.1:80", 1, 0, False)])]


def test_a_copy_is_alike_and_its_own(segment: Segment) -> None:
    ledger = Ledger(segment)
    slot = register(segment, ledger, ENTRIES)["web"].slots[0]
    with ledger.locked():
        ledger.claim(slot)
    before = bytes(segment.text)
    copy = private_copy(segment)
    assert bytes(segment.text) == before and copy.secret == segment.secret
    theirs = Ledger(copy, takes_row=False)
    assert theirs.totals[slot] == 1
    with theirs.locked():
        theirs.claim(slot)
    assert (ledger.totals[slot], theirs.totals[slot]) == (1, 2)
    assert bytes(segment.text) == before


def test_the_lock_of_a_copy_is_free_and_that_of_the_instance_is_given_back(segment: Segment) -> None:
    ledger = Ledger(segment)
    theirs = Ledger(private_copy(segment), takes_row=False)
    with ledger.locked(), theirs.locked():
        assert theirs.totals.tolist() == ledger.totals.tolist()


def test_a_table_of_sessions_that_changes_all_the_time_is_copied_too(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(2, 8, 8, sessions=64))
    start = segment.layout.sessions_start
    segment.cells[start + at.T_CHANGES] = 7  # odd: a change is going on
    segment.cells[start + at.T_FRESH] = 42
    copy = private_copy(segment)
    assert copy.cells[start + at.T_FRESH] == 42 and len(copy.text) >= len(segment.text)
