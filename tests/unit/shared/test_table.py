"""The server table: slots that stay with their servers, and are free again when nobody names them."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

import pytest

from prefork_lb.shared import layout as at
from prefork_lb.shared.discovered import Discovered, DiscoveryState, discovered_of, write_discovered
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.scaling_state import Mode, Scaling, scaling_of, write_scaling
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.table import PoolEntry, PoolSlots, ServerEntry, free_unused, register
from prefork_lb.shared.text import read_text, write_text
from prefork_lb.shared.view import view
from tests.unit.shared.breaking import Break, broken_off, moments
from tests.unit.shared.conftest import SERVERS
from tests.unit.shared.processes import Child, Master, running
from tests.unit.shared.test_ledger import claim


def pool(*addresses: str, name: str = "web") -> PoolEntry:
    return PoolEntry(name, [ServerEntry(address, 1, 0, False) for address in addresses])


def enter(segment: Segment, ledger: Ledger, *pools: PoolEntry) -> dict[str, Sequence[int]]:
    return {name: entry.slots for name, entry in register(segment, ledger, pools).items()}


def addresses(segment: Segment) -> list[str]:
    return sorted(server.address for server in view(segment).servers)


def end_worker(segment: Segment, row: int) -> None:
    """The process of this row is gone: no process has its start time."""
    segment.cells[segment.layout.row(row) + at.R_START] = 1


def test_every_server_of_every_pool_has_a_slot_of_its_own(segment: Segment) -> None:
    ledger = Ledger(segment)
    slots = enter(segment, ledger, pool("a:1", "b:1"), pool("a:1", "c:1", name="api"))
    used = [*slots["web"], *slots["api"]]
    assert len(set(used)) == 4
    assert all(0 <= slot < SERVERS for slot in used)


def test_slots_stay_over_workers_and_orders(segment: Segment) -> None:
    first = enter(segment, Ledger(segment), pool("a:1", "b:1", "c:1"))["web"]
    second = enter(segment, Ledger(segment), pool("c:1", "a:1", "b:1"))["web"]
    assert list(second) == [first[2], first[0], first[1]]


def test_a_new_worker_sees_the_claims_of_the_old_one(segment: Segment) -> None:
    old = Ledger(segment)
    slot = enter(segment, old, pool("a:1", "b:1"))["web"][1]
    claim(old, slot)
    new = Ledger(segment)
    assert new.totals[enter(segment, new, pool("b:1", "c:1"))["web"][0]] == 1


def test_the_generation_changes_with_the_table_and_only_then(segment: Segment) -> None:
    ledger = Ledger(segment)
    found = []
    for entry in (
        pool("a:1", "b:1"),
        pool("a:1", "b:1"),  # the same again
        pool("b:1", "a:1"),  # an order is no change of the table
        pool("a:1", "b:1", "c:1"),
        PoolEntry("web", [ServerEntry("a:1", 2, 0, False), *pool("b:1", "c:1").servers]),
        PoolEntry("web", [ServerEntry("a:1", 2, 9, False), *pool("b:1", "c:1").servers]),
        PoolEntry("web", [ServerEntry("a:1", 2, 9, True), *pool("b:1", "c:1").servers]),
        PoolEntry("web", [ServerEntry("a:1", 2, 9, True), *pool("b:1", "c:1").servers]),
        PoolEntry("web", [ServerEntry("a:1", 2, 9, True), *pool("b:1").servers]),  # c has left
    ):
        register(segment, ledger, [entry])
        found.append(ledger.generation)
    assert found == [2, 2, 2, 3, 4, 5, 6, 6, 7]
    assert view(segment).workers[0].generation == 7


def test_a_server_that_left_stays_while_an_old_worker_names_it(segment: Segment) -> None:
    old, new = Ledger(segment), Ledger(segment)
    enter(segment, old, pool("a:1", "b:1"))
    enter(segment, new, pool("b:1", "c:1"))
    free_unused(segment, new)
    assert addresses(segment) == ["a:1", "b:1", "c:1"]
    end_worker(segment, 0)
    new.reclaim_dead()
    free_unused(segment, new)
    assert addresses(segment) == ["b:1", "c:1"]


def test_a_server_that_was_only_removed_is_freed_as_well(segment: Segment) -> None:
    """A reload that takes servers out and puts none in."""
    old, new = Ledger(segment), Ledger(segment)
    enter(segment, old, pool("a:1", "b:1"))
    kept = enter(segment, new, pool("b:1"))["web"]
    free_unused(segment, new)
    assert addresses(segment) == ["a:1", "b:1"], "the old worker still balances over both"
    end_worker(segment, 0)
    new.reclaim_dead()
    free_unused(segment, new)
    assert addresses(segment) == ["b:1"]
    assert enter(segment, new, pool("b:1"))["web"] == kept


def test_a_server_is_freed_also_when_the_old_worker_ended_before_the_new_one_began(segment: Segment) -> None:
    """Its row is given back by the start of the new one; no sweep finds anything afterwards."""
    enter(segment, Ledger(segment), pool("a:1", "b:1"))
    end_worker(segment, 0)
    enter(segment, Ledger(segment), pool("b:1"))
    assert addresses(segment) == ["b:1"]


def test_workers_of_two_configurations_in_turn_lose_nothing(segment: Segment) -> None:
    """An upgrade with USR2: both masters start workers, each with its own configuration."""
    ledgers = []
    for number in range(6):
        ledgers.append(Ledger(segment))
        enter(segment, ledgers[-1], pool("a:1", "b:1") if number % 2 else pool("b:1", "c:1"))
        free_unused(segment, ledgers[-1])
    assert addresses(segment) == ["a:1", "b:1", "c:1"]


def test_a_slot_with_requests_in_flight_is_not_freed(segment: Segment) -> None:
    old, new = Ledger(segment), Ledger(segment)
    slots = enter(segment, old, pool("a:1", "b:1"))["web"]
    enter(segment, new, pool("b:1", "c:1"))
    claim(new, slots[0])  # whoever holds it
    end_worker(segment, 0)
    new.reclaim_dead()
    free_unused(segment, new)
    assert "a:1" in addresses(segment)
    new.release(slots[0])
    free_unused(segment, new)
    assert addresses(segment) == ["b:1", "c:1"]


def test_a_freed_slot_is_used_again_with_nothing_of_the_old_server(segment: Segment) -> None:
    old, new = Ledger(segment), Ledger(segment)
    slots = register(segment, old, [PoolEntry("web", [ServerEntry("a:1", 7, 5, True), ServerEntry("b:1", 1, 0, False)])])["web"]
    claim(old, slots.slots[0])
    old.release(slots.slots[0], failed=True)
    slots.columns[0][slots.slots[0]] = slots.columns[1][slots.slots[0]] = 77
    enter(segment, new, pool("b:1", "c:1"))
    end_worker(segment, 0)
    new.reclaim_dead()
    free_unused(segment, new)
    again = register(segment, new, [pool("b:1", "c:1", "d:1")])["web"]
    assert again.slots[2] == slots.slots[0]
    assert [column[again.slots[2]] for column in again.columns] == [0] * (len(at.POLICY_COLUMNS) + 1)
    shown = {server.address: server for server in view(segment).servers}["d:1"]
    assert (shown.weight, shown.max_connections, shown.backup) == (1, 0, False)
    assert (shown.in_flight, shown.requests, shown.failures) == (0, 0, 0)


def test_more_servers_than_there_is_room_for_are_refused(segment: Segment) -> None:
    ledger = Ledger(segment)
    with pytest.raises(SegmentError, match=f"room for {SERVERS} servers only; restart gunicorn to make more"):
        enter(segment, ledger, pool(*(f"s{number}:1" for number in range(SERVERS + 1))))
    assert addresses(segment) == [], "all or nothing"
    assert ledger.generation == 1
    assert len(enter(segment, ledger, pool(*(f"s{number}:1" for number in range(SERVERS))))["web"]) == SERVERS


def test_servers_that_only_lingering_workers_name_are_told_when_room_lacks_for_them(segment: Segment) -> None:
    """A restart would end what lingers, and a reload works a little later."""
    old = Ledger(segment)
    enter(segment, old, pool(*(f"old{number}:1" for number in range(SERVERS - 1))))
    new = Ledger(segment)
    with pytest.raises(SegmentError, match="restart gunicorn to make more"):
        enter(segment, new, pool("a:1", "b:1"))  # the old worker does not linger yet
    enter(segment, new, pool("a:1"))
    old.note_lingering(1)
    message = f"{SERVERS - 1} of them are kept for replaced workers that linger: reload again when these workers have ended"
    with pytest.raises(SegmentError, match=f"room for {SERVERS} servers only; {message}"):
        enter(segment, new, pool("a:1", "b:1"))
    # These would not be enough, or stay in use.
    for wanted in [f"new{number}:1" for number in range(SERVERS)], ["b:1", *(f"old{number}:1" for number in range(SERVERS - 1))]:
        with pytest.raises(SegmentError, match="restart gunicorn to make more"):
            enter(segment, new, pool("a:1", *wanted))
    assert addresses(segment) == ["a:1", *(f"old{number}:1" for number in range(SERVERS - 1))]


def test_pools_that_only_lingering_workers_name_are_told_when_room_lacks_for_them(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(4, 8, 2))
    old, new = Ledger(segment), Ledger(segment)
    enter(segment, old, pool("a:1", name="old"))
    enter(segment, new, pool("a:1"))
    old.note_lingering(1)
    with pytest.raises(SegmentError, match="room for 2 pools only; 1 of them are kept for replaced workers that linger"):
        enter(segment, new, pool("a:1"), pool("a:1", name="new"))


def test_a_name_too_long_for_the_table_is_refused(segment: Segment) -> None:
    with pytest.raises(SegmentError, match=f"longer than the {at.KEY_BYTES - 1} bytes"):
        enter(segment, Ledger(segment), pool("x" * 600 + ":1"))


def test_the_memory_of_a_policy_is_shared_and_kept_over_reloads(segment: Segment) -> None:
    one, other = Ledger(segment), Ledger(segment)
    first = register(segment, one, [pool("a:1", "b:1")])["web"]
    first.cells[3] = 5
    first.columns[1][first.slots[1]] = 6
    second = register(segment, other, [pool("c:1", "b:1")])["web"]
    assert second.cells[3] == 5
    assert second.columns[1][second.slots[1]] == 6
    assert len(second.cells) == at.POLICY_CELLS and len(second.columns) == len(at.POLICY_COLUMNS) + 1


def test_two_pools_have_memories_of_their_own(segment: Segment) -> None:
    both = register(segment, Ledger(segment), [pool("a:1"), pool("a:1", name="api")])
    both["web"].cells[0] = 1
    assert both["api"].cells[0] == 0


def test_a_pool_nobody_names_any_more_makes_room_for_another(segment: Segment) -> None:
    """Reloads with ever new names must not use up the room."""
    for number in range(3 * SERVERS):
        ledger = Ledger(segment)
        found = register(segment, ledger, [pool("a:1", name=f"pool{number}")])[f"pool{number}"]
        assert list(found.cells) == [0] * at.POLICY_CELLS
        assert (scaling_of(segment, found.number), discovered_of(segment, found.number)) == (None, None)
        found.cells[0] = number + 1
        with ledger.locked():
            write_scaling(segment, found.number, Scaling(Mode.AUTO, 8, 4, 2, 2, 1, ""))
            write_discovered(segment, found.number, Discovered(DiscoveryState.GOOD, 1000.0, 2, ""))
        if number:
            ledger.reclaim_dead()
        free_unused(segment, ledger)
        assert len(view(segment).servers) <= 2
        end_worker(segment, segment_row(segment, ledger))


def segment_row(segment: Segment, ledger: Ledger) -> int:
    """The row that `ledger` has: its claims lie there."""
    claim(ledger, SERVERS - 1)
    (row,) = (row for row in range(segment.layout.rows) if sum(segment.cells[segment.layout.row_array(row, 0)].tolist()))
    ledger.release(SERVERS - 1)
    return row


def test_more_pools_than_there_is_room_for_are_refused(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(2, 3, 3))
    ledger = Ledger(segment)
    enter(segment, ledger, *(pool("a:1", name=f"pool{number}") for number in range(3)))
    with pytest.raises(SegmentError, match="room for 3 (servers|pools) only"):
        enter(segment, ledger, *(pool("a:1", name=f"pool{number}") for number in range(4)))
    with pytest.raises(SegmentError, match="room for 3 pools only; restart gunicorn"):
        enter(segment, ledger, *(PoolEntry(f"pool{number}", []) for number in range(4)))


def test_workers_that_register_at_once_agree(segment: Segment) -> None:
    entries = [pool("a:1", "b:1", "c:1"), pool("a:1", name="api")]
    mine = Ledger(segment)

    def start() -> None:
        ledger = Ledger(segment)
        slots: dict[str, PoolSlots] = register(segment, ledger, entries)
        for entry in slots.values():
            for slot in entry.slots:
                claim(ledger, slot)
        os.kill(os.getpid(), signal.SIGKILL)

    with running(start, 4) as workers:
        assert [worker.wait() for worker in workers] == [-signal.SIGKILL] * 4
    assert len(addresses(segment)) == 4
    slots = enter(segment, mine, *entries)
    assert [segment.cells[segment.layout.column(at.C_USED)].tolist()[slot] for slot in slots["web"]] == [1, 1, 1]
    mine.reclaim_dead()
    assert mine.totals.tolist() == [0] * SERVERS


@pytest.mark.parametrize("how", Break)
def test_a_registration_broken_off_at_any_moment_is_made_whole_by_the_next(master: Master, how: Break) -> None:
    segment = attach_or_create(master.pid, Layout(4, 4, 4))
    survivor = Ledger(segment)
    before = enter(segment, survivor, pool("a:1", "b:1"))["web"]
    claim(survivor, before[1])

    def prepare() -> Callable[[], object]:
        mine = Ledger(segment)
        return lambda: register(segment, mine, [pool("b:1", "c:1"), pool("z:1", name="api")])

    def mend(instruction: int) -> None:
        survivor.reclaim_dead()
        # The survivor's servers are where they were, whatever became of the others.
        assert enter(segment, survivor, pool("a:1", "b:1"))["web"] == before
        assert survivor.totals.tolist() == [int(slot == before[1]) for slot in range(4)]
        free_unused(segment, survivor)
        assert addresses(segment) == ["a:1", "b:1"], f"broken off at instruction {instruction}"

    assert Child(lambda: prepare()()).wait() == 0  # so that each process finds what one before it has left
    mend(0)
    found = moments(how, prepare, segment.text, every=10)
    assert len(found) > 15
    mend(found[-1])
    for instruction in found:
        broken_off(instruction, how, prepare)
        mend(instruction)


def test_texts_survive_the_way_through_memory() -> None:
    memory = memoryview(bytearray(2 * at.KEY_BYTES))
    write_text(memory, at.KEY_BYTES, "pool\nunix:/run/größe.sock")
    assert read_text(memory, at.KEY_BYTES) == "pool\nunix:/run/größe.sock"
    write_text(memory, at.KEY_BYTES, "b")
    assert read_text(memory, at.KEY_BYTES) == "b"
    assert bytes(memory[:at.KEY_BYTES]) == bytes(at.KEY_BYTES)


def test_a_text_that_fills_the_field_is_refused_and_one_less_fits() -> None:
    memory = memoryview(bytearray(at.KEY_BYTES))
    with pytest.raises(SegmentError):
        write_text(memory, 0, "x" * at.KEY_BYTES)
    write_text(memory, 0, "x" * (at.KEY_BYTES - 1))
    assert read_text(memory, 0) == "x" * (at.KEY_BYTES - 1)


def test_a_child_of_a_worker_does_not_count_as_the_worker(segment: Segment) -> None:
    """A worker may start programs; that one of them still runs does not keep the worker's claims."""
    ledger = Ledger(segment)

    def work() -> None:
        claim(Ledger(segment), 2)
        if os.fork() == 0:
            signal.alarm(20)
            signal.pause()
        os._exit(0)

    assert Child(work).wait() == 0
    assert ledger.reclaim_dead() == (1, 1)
