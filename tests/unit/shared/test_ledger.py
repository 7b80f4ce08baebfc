"""The ledger: totals that are right at every moment, whoever dies whenever."""
from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from prefork_lb.errors import InvariantError
from prefork_lb.native.loader import native
from prefork_lb.native.switches import PURE
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.rows import NoRowLeft
from prefork_lb.shared.segment import Segment, SegmentError
from tests.unit.shared.breaking import Break, broken_off, moments
from tests.unit.shared.conftest import ROWS, SERVERS
from tests.unit.shared.processes import Child, Master, Signals, running


@pytest.fixture(autouse=True, params=["pure", "native"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs on the Python alone, and with the compiled module."""
    if request.param == "pure":
        monkeypatch.setenv(PURE, "1")
    elif native() is None:
        pytest.skip("prefork_lb.native.claims was not built: it takes a C compiler and Python's headers")
    return str(request.param)


def claim(ledger: Ledger, slot: int) -> None:
    ledger.acquire()
    try:
        ledger.claim(slot)
    finally:
        ledger.release_lock()


def totals(ledger: Ledger) -> list[int]:
    return ledger.totals.tolist()


def rows_in_use(segment: Segment) -> int:
    return sum(segment.cells[segment.layout.row(row) + at.R_PID] != 0 for row in range(segment.layout.rows))


def none_but(**slots: int) -> list[int]:
    """The totals with these numbers: `none_but(s2=5)`."""
    found = [0] * SERVERS
    for name, number in slots.items():
        found[int(name[1:])] = number
    return found


def test_claims_count_up_and_releases_down(ledger: Ledger) -> None:
    for slot in (0, 2, 2, 7):
        claim(ledger, slot)
    assert totals(ledger) == none_but(s0=1, s2=2, s7=1)
    ledger.release(2)
    ledger.release(7, failed=True)
    assert totals(ledger) == none_but(s0=1, s2=1)


def test_a_release_without_a_claim_raises_and_changes_nothing(ledger: Ledger) -> None:
    claim(ledger, 1)
    with pytest.raises(InvariantError, match="release without a claim: slot 3"):
        ledger.release(3)
    assert totals(ledger) == none_but(s1=1)
    ledger.release(1)  # and the lock is free


def test_nobody_can_release_the_claim_of_another_worker(segment: Segment, ledger: Ledger) -> None:
    other = Ledger(segment)
    claim(other, 4)
    with pytest.raises(InvariantError):
        ledger.release(4)
    other.release(4)
    assert totals(ledger) == none_but()


def test_processes_that_claim_and_release_at_once_leave_nothing(segment: Segment, ledger: Ledger) -> None:
    def work() -> None:
        mine = Ledger(segment)
        rng = random.Random(os.getpid())
        for _ in range(500):
            slots = [rng.randrange(SERVERS) for _ in range(3)]
            for slot in slots:
                claim(mine, slot)
            for slot in slots:
                mine.release(slot, failed=slot == 0)

    with running(work, 4) as workers:
        assert [worker.wait() for worker in workers] == [0] * 4
    assert totals(ledger) == none_but()
    assert ledger.reclaim_dead().claims == 0


def test_threads_that_claim_and_release_at_once_leave_nothing(ledger: Ledger) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for slot in list(range(SERVERS)) * 60:
                claim(ledger, slot)
                ledger.release(slot)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and totals(ledger) == none_but()


def hold(segment: Segment, slots: list[int], ready: Signals) -> Callable[[], None]:
    """A worker that claims and then waits to be killed."""

    def work() -> None:
        mine = Ledger(segment)
        for slot in slots:
            claim(mine, slot)
        ready.send()
        signal.pause()

    return work


def test_the_claims_of_a_killed_process_are_given_back(segment: Segment, ledger: Ledger, signals: Signals) -> None:
    claim(ledger, 1)
    with running(hold(segment, [1, 1, 5], signals)) as (worker,):
        signals.wait()
        assert totals(ledger) == none_but(s1=3, s5=1)
        assert ledger.reclaim_dead() == (0, 0), "it lives"
        worker.kill()
    assert ledger.reclaim_dead() == (1, 3)
    assert totals(ledger) == none_but(s1=1)
    assert segment.cells[at.H_RECLAIMED] == 3
    assert ledger.reclaim_dead() == (0, 0)
    assert rows_in_use(segment) == 1


def test_a_zombie_is_dead(segment: Segment, ledger: Ledger, signals: Signals) -> None:
    """Its parent has not looked yet: gunicorn's master may take its time."""
    with running(hold(segment, [6], signals)) as (worker,):
        signals.wait()
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        assert ledger.reclaim_dead() == (1, 1)
        assert totals(ledger) == none_but()


def test_a_new_worker_gives_back_what_the_dead_held_before_it_takes_a_row(segment: Segment, signals: Signals) -> None:
    with running(hold(segment, [0], signals), ROWS) as workers:
        signals.wait(ROWS)
        for worker in workers:
            worker.kill()
    assert totals(Ledger(segment)) == none_but()
    assert rows_in_use(segment) == 1


def test_when_all_rows_are_in_use_the_error_says_so(segment: Segment) -> None:
    for _ in range(ROWS):
        Ledger(segment)
    with pytest.raises(SegmentError, match=f"all {ROWS} rows for worker processes are in use; run fewer workers"):
        Ledger(segment)
    # The lock is free and the rows of the others are whole.
    assert Child(lambda: pytest.raises(SegmentError, Ledger, segment)).wait() == 0


def test_a_row_whose_pid_was_given_to_another_process_is_dead(segment: Segment, ledger: Ledger) -> None:
    """Pids come again; the start time tells."""
    other = Ledger(segment)
    claim(other, 2)
    segment.cells[segment.layout.row(1) + at.R_START] -= 1
    assert ledger.reclaim_dead() == (1, 1)
    assert totals(ledger) == none_but()


def test_the_worker_that_lingers_longest_yields_its_row_to_a_new_one(segment: Segment) -> None:
    """It serves what it has for an hour; without a row a new worker serves nobody."""
    workers = [Ledger(segment) for _ in range(ROWS)]
    for worker in workers[2:4]:
        worker.note_lingering(1)
    segment.cells[segment.layout.row(workers[3].row) + at.R_LINGERS] -= 60
    assert not any(worker.must_yield_row() for worker in workers)
    with pytest.raises(NoRowLeft):
        Ledger(segment)
    assert [worker.must_yield_row() for worker in workers] == [worker is workers[3] for worker in workers]
    segment.cells[at.H_ROW_WANTED] -= 5000  # it has one by now, or has ended
    assert not any(worker.must_yield_row() for worker in workers)


def test_statistics_of_the_dead_are_kept(segment: Segment, ledger: Ledger) -> None:
    def work() -> None:
        mine = Ledger(segment)
        for _ in range(7):
            claim(mine, 3)
            mine.release(3, failed=True)
        claim(mine, 3)
        os.kill(os.getpid(), signal.SIGKILL)

    Child(work).wait()
    ledger.reclaim_dead()
    column = segment.layout.column
    assert segment.cells[column(at.C_PAST_REQUESTS).start + 3] == 8
    assert segment.cells[column(at.C_PAST_FAILURES).start + 3] == 7


def test_a_death_inside_the_lock_is_repaired_and_counted(segment: Segment, ledger: Ledger) -> None:
    """The total was changed, the row was not: the rows are the truth. The policies start anew."""
    claim(ledger, 1)
    policy = segment.layout.column(at.C_POLICY).start
    pool = segment.layout.pool(0)
    segment.cells[policy + 2] = segment.cells[pool] = 99

    def work() -> None:
        mine = Ledger(segment)
        mine.acquire()
        mine.totals[1] += 1
        mine.totals[6] += 5
        os.kill(os.getpid(), signal.SIGKILL)

    Child(work).wait()
    claim(ledger, 0)
    assert totals(ledger) == none_but(s0=1, s1=1)
    assert segment.cells[at.H_REPAIRS] == 1
    assert segment.cells[policy + 2] == segment.cells[pool] == 0


def test_repair_keeps_which_servers_and_pools_there_are(segment: Segment, ledger: Ledger) -> None:
    used = segment.layout.column(at.C_USED).start
    segment.cells[used + 1] = 1
    segment.cells[segment.layout.pool(1) + at.P_USED] = 1
    ledger.acquire()
    claim(ledger, 0)  # EDEADLK: the section before was broken off
    assert segment.cells[at.H_REPAIRS] == 1
    assert segment.cells[used + 1] == segment.cells[segment.layout.pool(1) + at.P_USED] == 1


def test_kills_at_random_moments_leave_the_totals_right(segment: Segment, ledger: Ledger) -> None:
    """Three workers claim and release without a pause; one is killed every few milliseconds. Afterwards nothing is left
    of the dead, and no living one ever waited for ever."""
    rng = random.Random(5)
    claim(ledger, 0)

    def work() -> None:
        mine = Ledger(segment)
        held: list[int] = []
        pick = random.Random(os.getpid())
        while True:
            if len(held) < 4:
                held.append(pick.randrange(SERVERS))
                claim(mine, held[-1])
            else:
                mine.release(held.pop(pick.randrange(4)))

    with running(work, 3) as workers:
        for _ in range(50):
            time.sleep(rng.uniform(0, 0.006))  # the moment of the kill, not a wait for something
            workers.pop(0).kill()
            ledger.reclaim_dead()
            ledger.acquire()
            try:
                found, rows = totals(ledger), segment.layout.rows
                columns = [segment.cells[segment.layout.row_array(row, 0)].tolist() for row in range(rows)]
            finally:
                ledger.release_lock()
            assert found == [sum(column) for column in zip(*columns, strict=True)]
            workers.append(Child(work))
    ledger.reclaim_dead()
    assert totals(ledger) == none_but(s0=1)
    assert rows_in_use(segment) == 1


def test_generation_is_adopted_and_the_oldest_counts(segment: Segment, ledger: Ledger) -> None:
    other = Ledger(segment)
    assert ledger.generation == ledger.oldest_generation() == 1
    segment.cells[at.H_GENERATION] = 7
    ledger.adopt_generation(7)
    assert (ledger.generation, ledger.oldest_generation()) == (7, 1)
    other.adopt_generation(6)
    assert ledger.oldest_generation() == 6


def test_without_any_worker_the_oldest_generation_is_the_current_one(segment: Segment, ledger: Ledger) -> None:
    segment.cells[segment.layout.row(0) + at.R_PID] = 0
    segment.cells[at.H_GENERATION] = 4
    assert ledger.oldest_generation() == 4


def test_a_closed_ledger_lets_the_segment_go_and_leaves_its_row(segment: Segment, ledger: Ledger, master: Master) -> None:
    claim(ledger, 1)
    ledger.close()
    segment.close()
    again = Ledger(attach_or_create(master.pid, Layout(ROWS, SERVERS, SERVERS)))
    assert totals(again) == none_but(s1=1), "the process still runs, its claims stand"


@pytest.fixture
def small(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(4, 2, 2))


def work_then(run: Callable[[Ledger], object], segment: Segment) -> Callable[[], Callable[[], object]]:
    """A worker with a claim of its own that runs `run`."""

    def prepare() -> Callable[[], object]:
        mine = Ledger(segment)
        claim(mine, 0)
        return lambda: run(mine)

    return prepare


def claim_and_release(mine: Ledger) -> None:
    claim(mine, 1)
    mine.release(1)
    mine.release(0)


@pytest.mark.parametrize("how", Break)
def test_a_worker_broken_off_at_any_instruction_of_claim_and_release_leaves_nothing(small: Segment, how: Break) -> None:
    survivor = Ledger(small)
    claim(survivor, 0)
    claim(survivor, 1)
    prepare = work_then(claim_and_release, small)
    found = moments(how, prepare, small.text)
    survivor.reclaim_dead()
    assert len(found) > 8  # it was traced
    for instruction in found:
        assert not broken_off(instruction, how, prepare)
        claim(survivor, 1)  # the lock is free, or repaired
        survivor.release(1)
        survivor.reclaim_dead()
        assert totals(survivor) == [1, 1], f"broken off at instruction {instruction}"
    assert rows_in_use(small) == 1
