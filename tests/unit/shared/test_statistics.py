"""What clients were answered: counted by workers, kept when they end, begun anew with a server."""
from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from prefork_lb.native.loader import native_tally
from prefork_lb.native.switches import PURE
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.statistics import BOUNDS_S, Numbers, PoolNumbers, Tally
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.view import view
from tests.unit.shared.breaking import Break, broken_off, moments
from tests.unit.shared.processes import Child, Master


@pytest.fixture(params=["native", "python"], autouse=True)
def _counted_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test with the compiled module and without."""
    if request.param == "python":
        monkeypatch.setenv(PURE, "1")
    elif native_tally() is None:
        pytest.skip("prefork_lb.native.tally was not built: it takes a C compiler")


@pytest.fixture
def segment(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(4, 3, 2, statistics=1))


def tally_of(ledger: Ledger, one_thread: bool = True) -> Tally:
    return Tally(ledger.segment, ledger.row, one_thread)


def work_and_die(segment: Segment, answers: int = 1) -> None:
    """A worker that counts this many answers of slot 1 and one of everything else, and ends."""

    def work() -> None:
        tally = tally_of(Ledger(segment))
        for _ in range(answers):
            tally.count_answer(1, 0, 200, 10, 100, 0.004)
        tally.count_own(0, 503, 0.0001)
        tally.count_without_pool(404)
        tally.count_shed()

    assert Child(work).wait() == 0


def pool_entry(*addresses: str, name: str = "web") -> PoolEntry:
    return PoolEntry(name, [ServerEntry(address, 1, 0, False) for address in addresses])


def test_an_answer_is_counted_by_its_class_with_its_bytes_and_its_time(segment: Segment) -> None:
    tally = tally_of(Ledger(segment))
    for status in (101, 200, 204, 302, 404, 499, 503, 999):
        tally.count_answer(2, 1, status, 5, 100, 0.25)
    found = Numbers(segment).server(2)
    assert found.codes == {"1xx": 1, "2xx": 2, "3xx": 1, "4xx": 2, "5xx": 2}
    assert (found.answers, found.bytes_in, found.bytes_out, found.seconds) == (8, 40, 800, 2.0)
    assert Numbers(segment).server(1).answers == 0
    assert sum(Numbers(segment).pool(1).buckets) == 8


def test_answers_of_this_proxy_are_counted_by_status(segment: Segment) -> None:
    tally = tally_of(Ledger(segment))
    for status in (408, 413, 499, 500, 501, 502, 503, 503, 504):
        tally.count_own(0, status, 0.5)
    found = Numbers(segment).pool(0)
    assert found.own == {"4xx": 2, "499": 1, "500": 2, "502": 1, "503": 2, "504": 1}
    assert (sum(found.buckets), found.seconds) == (9, 4.5)


def test_what_reached_no_pool_is_counted_by_class(segment: Segment) -> None:
    tally = tally_of(Ledger(segment))
    for status in (204, 400, 404, 499, 503, 505):
        tally.count_without_pool(status)
    tally.count_shed()
    found = Numbers(segment).instance
    assert found.codes == {"1xx": 0, "2xx": 1, "3xx": 0, "4xx": 2, "5xx": 2, "499": 1}
    assert found.shed == 1


@pytest.mark.parametrize(("seconds", "bucket"), [
    (0.0, 0), (0.001, 0), (0.0011, 1), (0.3, BOUNDS_S.index(0.5)), (60.0, len(BOUNDS_S) - 1), (3600.0, len(BOUNDS_S))])
def test_a_request_falls_into_the_bucket_that_its_time_is_not_above(segment: Segment, seconds: float, bucket: int) -> None:
    tally_of(Ledger(segment)).count_answer(0, 0, 200, 0, 0, seconds)
    buckets = Numbers(segment).pool(0).buckets
    assert [number for number, count in enumerate(buckets) if count] == [bucket]


def test_the_numbers_of_workers_that_ended_stay(segment: Segment) -> None:
    survivor = Ledger(segment)
    tally_of(survivor).count_answer(1, 0, 200, 10, 100, 0.004)
    for _ in range(5):  # more than there are rows
        work_and_die(segment)
        survivor.reclaim_dead()
    found = Numbers(segment)
    assert (found.server(1).codes["2xx"], found.server(1).bytes_out, found.server(1).bytes_in) == (6, 600, 60)
    assert found.pool(0).own["503"] == 5
    assert (found.instance.codes["4xx"], found.instance.shed) == (5, 5)
    assert sum(found.pool(0).buckets) == 11


def test_a_dead_workers_numbers_count_before_its_row_is_given_back(segment: Segment) -> None:
    survivor = Ledger(segment)
    work_and_die(segment)
    before = Numbers(segment).server(1)
    survivor.reclaim_dead()
    assert Numbers(segment).server(1) == before


@pytest.mark.parametrize("how", Break)
def test_a_row_is_added_to_the_past_once_wherever_that_is_broken_off(segment: Segment, how: Break) -> None:
    survivor = Ledger(segment)
    expected = 0

    def prepare() -> Callable[[], object]:
        return lambda: Ledger(segment).reclaim_dead()

    work_and_die(segment)
    found = moments(how, prepare, segment.text, every=25)
    assert len(found) > 12
    work_and_die(segment)
    survivor.reclaim_dead()
    expected = Numbers(segment).server(1).answers
    assert expected >= 2
    for instruction in found:
        work_and_die(segment)
        expected += 1
        broken_off(instruction, how, prepare)
        assert Numbers(segment).server(1).answers == expected, f"read after {instruction} instructions"
        survivor.reclaim_dead()
        assert Numbers(segment).server(1).answers == expected, f"broken off at instruction {instruction}"


def test_a_row_that_is_in_the_past_and_not_cleared_yet_counts_once(segment: Segment) -> None:
    """The moment between the two stores of a fold."""
    survivor = Ledger(segment)
    work_and_die(segment)
    cells, layout = segment.cells, segment.layout
    row = next(row for row in segment.rows_in_use() if row != survivor.row)
    cells[layout.statistics_block(layout.rows + 1)] = cells[layout.statistics_block(row)]
    cells[at.H_FOLDS] = 1 << 16 | row + 1
    assert Numbers(segment).server(1).answers == 1
    survivor.reclaim_dead()
    assert Numbers(segment).server(1).answers == 1


def test_a_server_in_the_place_of_another_begins_at_0(segment: Segment) -> None:
    """Though the blocks of a worker that lives and of one that ended have numbers of the one before."""
    ledger = Ledger(segment)
    tally = tally_of(ledger)
    register(segment, ledger, [pool_entry("a:1", "b:1")])
    for slot in (0, 1):
        tally.count_answer(slot, 0, 200, 1, 1, 1.0)
    work_and_die(segment, answers=3)
    ledger.reclaim_dead()
    register(segment, ledger, [pool_entry("a:1")])
    slots = register(segment, ledger, [pool_entry("a:1", "c:1")])["web"].slots
    assert slots == [0, 1]
    assert [Numbers(segment).server(slot).answers for slot in slots] == [1, 0]
    tally.count_answer(1, 0, 200, 1, 1, 1.0)
    work_and_die(segment)
    ledger.reclaim_dead()
    assert [Numbers(segment).server(slot).answers for slot in slots] == [1, 2]


def test_a_pool_in_the_place_of_another_begins_at_0(segment: Segment) -> None:
    ledger = Ledger(segment)
    tally = tally_of(ledger)
    number = register(segment, ledger, [pool_entry("a:1")])["web"].number
    tally.count_own(number, 503, 1.0)
    register(segment, ledger, [pool_entry("a:1", name="other")])
    assert register(segment, ledger, [pool_entry("a:1", name="third")])["third"].number == number
    shown = {pool.name: pool.numbers for pool in view(segment).pools}
    numbers = shown["third"]
    assert isinstance(numbers, PoolNumbers) and (sum(numbers.buckets), numbers.seconds, numbers.own["503"]) == (0, 0.0, 0)


def test_several_threads_of_a_worker_lose_no_count(segment: Segment) -> None:
    tally = tally_of(Ledger(segment), one_thread=False)

    def count() -> None:
        for _ in range(3000):
            tally.count_answer(0, 0, 200, 1, 1, 0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Numbers(segment)
    assert (found.server(0).answers, found.server(0).bytes_in, sum(found.pool(0).buckets)) == (12000, 12000, 12000)


def test_without_room_nothing_is_kept_and_nothing_shown(master: Master) -> None:
    segment = attach_or_create(master.pid, Layout(4, 3, 3))
    assert segment.layout.statistics_block(0) == segment.layout.statistics_block(3)
    survivor = Ledger(segment)
    register(segment, survivor, [pool_entry("a:1")])
    Child(lambda: Ledger(segment)).wait()
    survivor.reclaim_dead()
    shown = view(segment)
    assert shown.numbers is None
    assert [part.numbers for part in (*shown.servers, *shown.pools)] == [None, None]


def test_the_room_is_found_again_by_who_attaches(segment: Segment, master: Master) -> None:
    assert attach_or_create(master.pid, Layout(1, 1, 1)).layout == segment.layout



def test_a_tally_lets_go_of_the_memory(segment: Segment) -> None:
    tally = tally_of(Ledger(segment))
    tally.count_answer(0, 0, 200, 0, 0, 0.0)
    tally.close()
    with pytest.raises(ValueError, match="released"):
        tally.count_answer(0, 0, 200, 0, 0, 0.0)
