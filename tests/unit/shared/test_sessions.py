"""The table of learned sessions, on lists, and in shared memory where several processes matter."""
from __future__ import annotations

import contextlib
import os
import random
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.sessions import SessionKeys, SessionTable, count_sessions
from prefork_lb.shared.sessions_repair import repair_sessions
from tests.unit.shared.processes import Child, Master

ROOM = 8


class Killed(BaseException):
    """Stands for the end of a process between two stores."""


class Cells(list[int]):
    """Memory in which a process is killed before one of its stores."""

    left = -1  # stores until then

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        super().__setitem__(index, value)


class Memory:
    """Stands in for segment and ledger."""

    def __init__(self, sessions: int = ROOM, cells: list[int] | None = None) -> None:
        self.layout = Layout(0, 0, 0, 0, 0, sessions)
        self.cells = Cells(cells or [0] * self.layout.cells)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def table(self) -> SessionTable:
        return SessionTable(self, self)  # type: ignore[arg-type]

    def counts(self, since_ms: int) -> dict[int, int]:
        return count_sessions(self, since_ms)  # type: ignore[arg-type]

    def repair(self) -> None:
        repair_sessions(self)  # type: ignore[arg-type]


def key(number: int) -> tuple[int, int]:
    # Few buckets, so that chains are long.
    return number + 1, number % 3


def test_a_session_is_found_at_its_server() -> None:
    table = Memory().table()
    assert table.find(key(1)) is None
    table.put(key(1), 77, 1000)
    table.put(key(4), 88, 2000)
    assert table.find(key(1)) == (77, 1000) and table.find(key(4)) == (88, 2000)
    table.put(key(1), 99, 3000)
    assert table.find(key(1)) == (99, 3000)


def test_a_full_table_gives_up_the_one_that_was_not_used_for_longest() -> None:
    """Beside an ordered dict that does the same."""
    table, expected, rng = Memory().table(), OrderedDict[int, int](), random.Random(1)
    for now in range(0, 3_000_000, 1000):
        number = rng.randrange(14)
        place = table.find(key(number))
        assert (place.server if place else None) == expected.get(number)
        if place is not None and rng.random() < 0.7:
            table.use(key(number), place, now)
        else:
            expected[number] = rng.randrange(1, 4)
            table.put(key(number), expected[number], now)
        expected.move_to_end(number)
        if len(expected) > ROOM:
            expected.popitem(last=False)


def test_a_use_within_a_second_moves_nothing() -> None:
    memory = Memory()
    table = memory.table()
    table.put(key(1), 77, 1000)
    before = list(memory.cells)
    place = table.find(key(1))
    assert place is not None
    table.use(key(1), place, 1999)
    assert list(memory.cells) == before
    table.use(key(1), place, 2000)
    assert table.find(key(1)) == (77, 2000)


def test_the_sessions_of_a_server_are_counted() -> None:
    memory = Memory()
    table = memory.table()
    assert memory.counts(0) == {}
    for number in range(12):
        table.put(key(number), 7 if number % 2 else 8, number)
    assert memory.counts(0) == {7: 4, 8: 4}
    assert memory.counts(9) == {7: 2, 8: 1}


def whole(memory: Memory) -> dict[tuple[int, int], int]:
    """The sessions by the list, which must be the same in both directions and agree with the chains; keys to servers."""
    cells, head = list(memory.cells), memory.layout.sessions_start
    entries = head + at.SESSION_HEAD_CELLS + memory.layout.session_buckets - at.SESSION_CELLS
    order, number = [], cells[head + at.T_OLDEST]
    while number:
        order.append(number)
        number = cells[entries + number * at.SESSION_CELLS + 5]
    back, number = [], cells[head + at.T_NEWEST]
    while number:
        back.append(number)
        number = cells[entries + number * at.SESSION_CELLS + 4]
    assert order == back[::-1] and len(set(order)) == len(order)
    found = {}
    for number in order:
        high, low, server, used = cells[entries + number * at.SESSION_CELLS:][:4]
        if high:
            found[high, low] = server
            place = memory.table().find((high, low))
            assert place == (server, used)
    return found


@pytest.mark.parametrize("change", ["new", "again", "moved", "used"])
@pytest.mark.parametrize("filled", [3, ROOM])
def test_a_worker_killed_before_any_store_leaves_a_table_that_can_be_repaired(change: str, filled: int) -> None:
    start = Memory()
    for number in range(filled):
        start.table().put(key(number), 7, 1000 * number)
    before = whole(start)
    number = 12 if change == "new" else 1
    for stores in range(200):
        memory = Memory(cells=list(start.cells))
        table = memory.table()
        memory.cells.left = stores
        with contextlib.suppress(Killed):
            if change == "used":
                place = table.find(key(number))
                assert place is not None
                table.use(key(number), place, 90_000)
            else:
                table.put(key(number), 9 if change == "moved" else 7, 90_000)
        is_over = memory.cells.left > 0
        memory.cells.left = -1
        memory.repair()
        after = whole(memory)
        # At most the session that had to go is gone, and the new one is there or not.
        lost = before.keys() - after.keys()
        assert lost <= {key(0)} and (not lost or filled == ROOM), (stores, lost)
        assert after.keys() - before.keys() <= {key(12)}
        assert all(server == 7 for known, server in after.items() if known != key(1))
        for more in range(20, 20 + ROOM):
            memory.table().put(key(more), 5, 100_000 + more)
        assert set(whole(memory)) == {key(more) for more in range(20, 20 + ROOM)}, stores
        if is_over:
            break
    else:
        raise AssertionError("a change has more stores than that")


def test_what_a_signal_handler_broke_off_is_repaired_by_the_next_change() -> None:
    memory = Memory()
    table = memory.table()
    for number in range(ROOM):
        table.put(key(number), 7, 1000 * number)
    memory.cells.left = 9
    with contextlib.suppress(Killed):
        table.put(key(12), 7, 90_000)
    memory.cells.left = -1
    assert table.find(key(5)) is not None
    table.put(key(13), 7, 91_000)
    assert key(13) in whole(memory)


def test_all_workers_see_a_session_and_a_dead_owner_of_the_lock_is_made_good() -> None:
    master = Master()
    segment = attach_or_create(master.pid, Layout(4, 8, 8, sessions=100))
    try:
        ledger, keys = Ledger(segment), SessionKeys(segment.secret, "web")
        table = SessionTable(segment, ledger)

        def learn() -> None:
            SessionTable(segment, Ledger(segment)).put(keys.session(b"abc"), keys.server("a:1"), 5)

        def die_in_the_middle() -> None:
            other = Ledger(segment)
            other.acquire()
            segment.cells[segment.layout.sessions_start] |= 1
            segment.cells[segment.layout.sessions_start + at.T_NEWEST] = 55

            os._exit(9)

        assert Child(learn).wait() == 0
        assert table.find(keys.session(b"abc")) == (keys.server("a:1"), 5)
        Child(die_in_the_middle).wait()
        table.put(keys.session(b"other"), keys.server("a:2"), 6)
        assert table.find(keys.session(b"abc")) == (keys.server("a:1"), 5)
        assert segment.cells[segment.layout.sessions_start + at.T_NEWEST] == 2
        assert keys.session(b"abc") != SessionKeys(segment.secret, "api").session(b"abc")
        assert keys.session(b"abc") != SessionKeys(b"x" * 32, "web").session(b"abc")
    finally:
        remove_segment(master.pid)
        master.kill()


def test_a_hundred_thousand_sessions_fit_into_16_mib() -> None:
    assert Layout(32, 256, 48, 8192, 0, 100_000).size - Layout(32, 256, 48, 8192, 0, 0).size <= 16 << 20


def test_chains_that_nobody_would_meet_by_chance_are_walked_to_their_end() -> None:
    table = Memory(100).table()
    for number in range(1, 101):
        table.put((number, 5), number, 0)
    assert table.find((1, 5)) == (1, 0) and table.find((100, 5)) == (100, 0)
    assert table.find((101, 5)) is None


def test_a_session_that_had_to_go_before_its_use_is_noted_is_let_go() -> None:
    memory = Memory()
    table = memory.table()
    table.put(key(0), 7, 0)
    place = table.find(key(0))
    assert place is not None
    for number in range(1, 1 + ROOM):
        table.put(key(number), 7, number)
    table.use(key(0), place, 9000)
    assert set(whole(memory)) == {key(number) for number in range(1, 1 + ROOM)}
