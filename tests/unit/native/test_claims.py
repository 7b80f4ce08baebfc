"""The compiled module of claims: what it is made of, what it refuses, and deaths in the middle of it."""
from __future__ import annotations

import gc
import weakref
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prefork_lb.balance.answer_times import FAILURE, NOISE, POOL_LEVEL, WEIGHT
from prefork_lb.balance.least_connections import IDLE_PICKS
from prefork_lb.balance.rotation import MEMORY_ROUNDS, UNIT
from prefork_lb.native.loader import FastClaims, NativeAnswers, native
from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.lock import MUTEX_BYTES
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.rate_table import RateTable
from prefork_lb.shared.segment import Segment
from tests.unit.native.stepping import Stepper, needs_trace
from tests.unit.shared.processes import Master

MODULE: Any = native()
pytestmark = pytest.mark.skipif(MODULE is None, reason="prefork_lb.native.claims was not built: it takes a C compiler")
RULE = (UNIT, MEMORY_ROUNDS, IDLE_PICKS)
CHOSEN = (0, 0)  # when a cell that these tests have was so
SERVERS = 2


def cells(number: int) -> memoryview:
    return memoryview(bytearray(8 * number)).cast("q")


def claims(memory: object = None, lock_byte: int = 0, servers: int = SERVERS, recover: object = print) -> Any:
    return MODULE.Claims(memory if memory is not None else bytearray(MUTEX_BYTES), lock_byte, *(cells(servers) for _ in range(5)),
                         recover)


def picker(of: Any, servers: object = ((0, 1, 9), (1, 1, 9)), rule: tuple[int, ...] = RULE,
           chosen: tuple[int, ...] = CHOSEN) -> Any:
    return MODULE.LeastConnections(of, servers, cells(8), cells(SERVERS), cells(SERVERS), *rule, *chosen)


@pytest.mark.parametrize("name", ["Claims", "LeastConnections", "Rates"])
def test_there_is_no_object_without_its_parts(name: str) -> None:
    kind = getattr(MODULE, name)
    with pytest.raises(TypeError):
        kind.__new__(kind)
    with pytest.raises(TypeError):
        type("Other", (kind,), {})
    with pytest.raises(TypeError):
        kind.release = None


def test_an_object_that_could_not_be_made_cannot_be_had_by_trying_again() -> None:
    """Another `__init__` after a failed one took the buffers of a half made object a second time."""
    made = claims()
    made.__init__()
    assert made.release(0, False) is False
    memory = bytearray(MUTEX_BYTES)
    for _ in range(3):
        with pytest.raises(ValueError, match="no room"):
            claims(memory, MUTEX_BYTES)
    memory.append(0)  # nobody holds its buffer


@pytest.mark.parametrize("lock_byte", [-1, -(2**63), 1, 8, MUTEX_BYTES, 2**63 - 1, 2**63 - 8])
def test_a_lock_lies_within_the_memory(lock_byte: int) -> None:
    with pytest.raises(ValueError, match="no room for a lock"):
        claims(bytearray(40), lock_byte)


def test_a_lock_is_aligned() -> None:
    for byte in range(1, 8):
        with pytest.raises(ValueError, match="not aligned"):
            claims(bytearray(4 * MUTEX_BYTES), byte)


def test_a_memory_too_small_for_a_lock_is_refused() -> None:
    with pytest.raises(ValueError, match="no room for a lock"):
        claims(bytearray(8))


@pytest.mark.parametrize(("servers", "error"), [
    ((), ValueError), (((0, 1, 9),) * (2**10 + 1), ValueError), (((2, 1, 9),), ValueError), (((-1, 1, 9),), ValueError),
    (((0, 0, 9),), ValueError), (((0, 2**40, 9),), ValueError), ((7,), TypeError), ((b"abc",), TypeError), (((0, 1),), TypeError),
    (((0, 1, 2**70),), OverflowError), ([(0, 1, 9)], TypeError),
])
def test_servers_that_cannot_be_are_refused(servers: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        picker(claims(), servers)


@pytest.mark.parametrize("rule", [
    (0, 4, 2), (-1, 4, 2), (2**40, 4, 2), (UNIT, 0, 2), (UNIT, 2**40, 2), (UNIT, 4, 1), (UNIT, 4, 8), (UNIT, 4, -1),
])
def test_numbers_of_the_policy_have_ranges(rule: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="out of its range"):
        picker(claims(), rule=rule)


@pytest.mark.parametrize("numbers", [(-1, 1, 8), (0, 0, 8), (0, 1, 0), (0, -1, 8), (0, 1, -8), (1, 1, 4), (0, 2, 4), (8, 1, 1),
                                     (0, 2**62, 8), (0, 8, 2**62), (2**62, 1, 1)])
def test_a_table_of_rates_lies_within_the_memory(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no room"):
        MODULE.Rates(claims(), *numbers)


@pytest.mark.parametrize("arguments", [(), (1, 2, 3), (1, 2, 3, 4, 5), ("1", 2, 3, 4), (1, 2.0, 3, 4), (1, 2, 3, None)])
def test_wrong_arguments_of_a_rate(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        MODULE.Rates(claims(bytearray(256), 0), 8, 1, 8).take(*arguments)
    with pytest.raises(TypeError):
        MODULE.Rates(None, 0, 1, 1)


@pytest.mark.parametrize("cell", [-1, MUTEX_BYTES // 8, 2**40])
def test_the_count_of_changes_lies_within_the_memory(cell: int) -> None:
    with pytest.raises(ValueError, match="no cell"):
        picker(claims(), chosen=(cell, 0))


def test_a_cycle_through_it_is_collected() -> None:
    """As a ledger's: it holds its claims, which hold its lock's `recover`, which holds the ledger."""

    class Holder:
        def recover(self, result: int) -> None: ...

    holder: Any = Holder()
    holder.claims = claims(recover=holder.recover)
    holder.picker = picker(holder.claims)
    holder.rates = MODULE.Rates(holder.claims, 0, 1, 1)
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


def test_what_recovers_the_lock_can_be_called() -> None:
    with pytest.raises(TypeError, match="recover"):
        claims(recover=None)


def test_a_ledger_that_nobody_has_any_more_is_collected(small: Segment) -> None:
    """It holds views of the memory whose buffers its claims hold: a collector that cleared those crashed (Python gh-77894)."""
    ledger = Ledger(small)
    site = MODULE.LeastConnections(ledger.native_claims, ((0, 1, 9), (1, 1, 9)), *(cells(8) for _ in range(3)), *RULE, *CHOSEN)
    gone = weakref.ref(ledger)
    del ledger, site
    gc.collect()
    assert gone() is None


@pytest.fixture
def small() -> Iterator[Segment]:
    master = Master()
    segment = attach_or_create(master.pid, Layout(4, SERVERS, SERVERS))
    yield segment
    master.kill()
    (DIRECTORY / segment.name).unlink()


class Site:
    """Two servers of unequal weights, on one of which something is in flight, and a worker that looks on."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.survivor = Ledger(segment)
        self.picker = self.fast_claims(self.survivor)
        self.survivor.acquire()
        self.survivor.claim(0)
        self.survivor.release_lock()

    def answers(self, ledger: Ledger) -> NativeAnswers:
        layout, pool, cells = self.segment.layout, self.segment.layout.pool(0), self.segment.cells
        columns = [cells[layout.column(number)] for number in (at.C_LEVEL, at.C_HEARD, at.C_PICKED, at.C_BACK)]
        found: NativeAnswers = MODULE.Answers(ledger.native_claims, cells[pool:pool + at.POLICY_CELLS], *columns,
                                              ledger.unanswered, ledger.own_unanswered, POOL_LEVEL, WEIGHT,
                                              WEIGHT * SERVERS, NOISE, FAILURE)
        return found

    def fast_claims(self, ledger: Ledger, answers: NativeAnswers | None = None) -> FastClaims:
        layout, pool = self.segment.layout, self.segment.layout.pool(0)
        columns = [self.segment.cells[layout.column(at.C_POLICY + number)] for number in (0, 1)]
        found: FastClaims = MODULE.LeastConnections(ledger.native_claims, ((0, 3, 9), (1, 2, 9)),
                                                    self.segment.cells[pool:pool + at.POLICY_CELLS], *columns, *RULE,
                                                    at.H_CHANGES, self.segment.cells[at.H_CHANGES], answers)
        return found

    def worker(self) -> Callable[[], object]:
        """What a worker does, with a row of its own; all that it needs is made already."""
        ledger = Ledger(self.segment)
        picker, claimed = self.fast_claims(ledger), ledger.native_claims
        assert claimed is not None

        def work() -> None:
            index = picker.claim(0)
            claimed.release(index, False)

        return work

    def look(self) -> list[int]:
        """Claim and release over what the dead left, as a living worker does."""
        index = self.picker.claim(0)
        if index < 0:  # the repair of the lock counted a change, after which a worker looks anew
            self.picker = self.fast_claims(self.survivor)
            index = self.picker.claim(0)
        assert index >= 0, "the lock is free, or repaired"
        claimed = self.survivor.native_claims
        assert claimed is not None and claimed.release(index, False)
        self.survivor.reclaim_dead()
        return self.survivor.totals.tolist()


@needs_trace
@pytest.mark.parametrize("more", [0, 5])
def test_a_worker_killed_between_any_two_stores_of_claim_and_release_leaves_nothing(small: Segment, more: int) -> None:
    site = Site(small)
    stepper = Stepper(small.cells, site.worker)
    site.look()
    number, made = 0, 0
    while made == number:
        number += 1
        made = stepper.stores(number, more)
        assert site.look() == [1, 0], f"killed after store {number} and {more} instructions"
    assert number > 15  # the stores were seen


@needs_trace
@pytest.mark.parametrize("more", [0, 5])
def test_a_worker_killed_between_any_two_stores_leaves_no_request_that_waits(small: Segment, more: int) -> None:
    """Of a policy that goes by the times of answers: two claims, one that is answered before its release and one with it."""
    site = Site(small)

    def worker() -> Callable[[], object]:
        ledger = Ledger(small)
        answers = site.answers(ledger)
        picker = site.fast_claims(ledger, answers)

        def work() -> None:
            index = picker.claim(1000)
            answers.end(index, False, 1000, 4000, 0)
            assert ledger.native_claims is not None
            ledger.native_claims.release(index, False)
            index = picker.claim(5000)
            answers.release(index, True, 5000, 9000, 1)

        return work

    stepper = Stepper(small.cells, worker)
    site.look()
    number, made = 0, 0
    while made == number:
        number += 1
        made = stepper.stores(number, more)
        assert site.look() == [1, 0], f"killed after store {number} and {more} instructions"
        assert site.survivor.unanswered.tolist() == [0, 0], f"killed after store {number} and {more} instructions"
    assert number > 40  # the stores were seen


@needs_trace
@pytest.mark.parametrize("more", [0, 5])
def test_a_worker_killed_between_any_two_stores_of_a_rate_leaves_the_old_key_none_or_the_new_one(more: int) -> None:
    master = Master()
    segment = attach_or_create(master.pid, Layout(4, SERVERS, SERVERS, rates=at.RATES_IN_SET))
    first = segment.layout.rates_start
    survivor = RateTable(segment, Ledger(segment))
    entries = segment.cells[first:first + at.RATES_IN_SET * at.RATE_CELLS]
    old = [cell for key in range(1, at.RATES_IN_SET + 1) for cell in (key, 1000 + key)]
    key, interval, now = 77, 50, 2000

    def worker() -> Callable[[], object]:
        entries[:] = memoryview(array("q", old))
        table = RateTable(segment, Ledger(segment))
        return lambda: table.take(key, interval, 0, now)

    stepper = Stepper(segment.cells, worker)
    number, made = 0, 0
    while made == number:
        number += 1
        made = stepper.stores(number, more)
        assert entries[2:].tolist() == old[2:]
        assert entries[:2].tolist() in (old[:2], [1, 0], [key, 0], [key, now + interval]), f"killed after store {number}"
        assert survivor.take(key, interval, 0, now + interval) == 0, "the lock is free, or repaired"
    assert number > 4
    (DIRECTORY / segment.name).unlink()
    master.kill()


@pytest.mark.parametrize("index", [-1, 2, 2**40])
def test_a_session_can_only_ask_for_a_server_that_is_there(index: int) -> None:
    with pytest.raises(IndexError, match="no server"):
        picker(claims()).claim_at(index, 0)
    with pytest.raises(TypeError):
        picker(claims()).claim_at("0", 0)
