"""Limits of a rate: what a key may make in a time, and what a full table and a killed process leave."""
from __future__ import annotations

import os
import random
import signal

import pytest

from prefork_lb.shared.layout import RATE_CELLS
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.rate_table import LimitKeys, RateTable
from prefork_lb.shared.segment import Segment
from tests.unit.shared.conftest import NewMaster
from tests.unit.shared.processes import Master, running

INTERVAL_NS = 100_000  # ten thousand a second
LATER_NS = 60_000_000
KEY = 12345


@pytest.fixture
def limited(master: Master) -> Segment:
    return attach_or_create(master.pid, Layout(8, 8, 8, rates=64))


@pytest.fixture(params=["native", "pure"])
def table(limited: Segment, request: pytest.FixtureRequest) -> RateTable:
    return table_of(limited, request.param)


def table_of(segment: Segment, kind: str) -> RateTable:
    ledger = Ledger(segment)
    if kind == "pure":
        ledger.native_claims = None
    elif ledger.native_claims is None:
        pytest.skip("prefork_lb.native.claims was not built: it takes a C compiler")
    return RateTable(segment, ledger)


def test_both_count_the_same(new_master: NewMaster) -> None:
    segments = [attach_or_create(new_master().pid, Layout(8, 8, 8, rates=32)) for _ in range(2)]
    tables = [table_of(segment, kind) for segment, kind in zip(segments, ("native", "pure"), strict=True)]
    rng, now = random.Random(3), 10**15
    waits = [0, 0]
    for _ in range(5000):
        now += rng.choice([0, 10, 100_000])
        key = rng.choice([rng.randrange(-50, 50), rng.getrandbits(64) - 2**63]) or 1
        numbers = key, rng.choice([INTERVAL_NS, 1, 10**12]), rng.choice([0, INTERVAL_NS, 5 * INTERVAL_NS]), now
        found = [table.take(*numbers) for table in tables]
        assert found[0] == found[1], numbers
        waits[found[0] > 0] += 1
    assert min(waits) > 300
    layout = segments[0].layout
    cells = [segment.cells[layout.rates_start:layout.rates_start + 32 * RATE_CELLS].tolist() for segment in segments]
    assert cells[0] == cells[1]


@pytest.mark.parametrize("numbers", [(KEY, 2**70, 0, 5), (KEY, 2**62, 0, 5), (KEY, 1, 2**70, 5), (KEY, 1, 0, 0)])
def test_numbers_of_any_size_are_counted(table: RateTable, numbers: tuple[int, int, int, int]) -> None:
    """A rate of one in a thousand years is none that C can count."""
    if numbers[1] < 2**63:
        assert table.take(*numbers) == 0
    else:
        with pytest.raises((OverflowError, ValueError)):
            table.take(*numbers)


def made(table: RateTable, instants: range, burst: int, key: int = KEY) -> int:
    """How many requests at these instants, in nanoseconds, are let through."""
    return sum(table.take(key, INTERVAL_NS, (burst - 1) * INTERVAL_NS, now) == 0 for now in instants)


@pytest.mark.parametrize("burst", [1, 2, 20])
@pytest.mark.parametrize("every_ns", [1000, 12_500, 50_000])
def test_in_a_time_a_key_makes_its_burst_and_what_its_rate_allows(table: RateTable, burst: int, every_ns: int) -> None:
    instants = range(LATER_NS, LATER_NS + 10_000_000, every_ns)
    expected = burst + (instants[-1] - instants[0]) // INTERVAL_NS
    assert made(table, instants, burst) == min(expected, len(instants))


def test_who_keeps_to_the_rate_is_never_refused(table: RateTable) -> None:
    instants = range(0, LATER_NS, INTERVAL_NS)
    assert made(table, instants, 1) == len(instants)


def test_the_burst_comes_again_after_a_pause(table: RateTable) -> None:
    assert [made(table, range(begin, begin + 50), 5) for begin in (0, LATER_NS)] == [5, 5]


def test_the_wait_that_is_told_is_enough_and_none_of_it_is_too_much(table: RateTable) -> None:
    made(table, range(10), 5)
    wait_ns = table.take(KEY, INTERVAL_NS, 4 * INTERVAL_NS, 9)
    assert wait_ns > 0
    assert table.take(KEY, INTERVAL_NS, 4 * INTERVAL_NS, 9 + wait_ns - 1) == 1
    assert table.take(KEY, INTERVAL_NS, 4 * INTERVAL_NS, 9 + wait_ns) == 0


def test_keys_do_not_share(table: RateTable) -> None:
    assert [made(table, range(100), 5, key) for key in (1, 9, 17, -7)] == [5] * 4  # of one set, all of them


def test_a_flood_of_keys_drives_out_none_that_is_at_its_limit(table: RateTable) -> None:
    made(table, range(100), 5)
    for key in range(10_000):
        if key != KEY:
            assert table.take(key, INTERVAL_NS, 4 * INTERVAL_NS, 100) == 0
    assert made(table, range(100, 200), 5) == 0


def test_processes_share_a_key(limited: Segment, master: Master) -> None:
    """Each of four is let through as far as all of them together may be; one is killed in the middle, which loses nothing."""
    reader, writer = os.pipe()

    def take() -> None:
        segment = attach_or_create(master.pid, Layout(8, 8, 8))
        mine = RateTable(segment, Ledger(segment))
        for now in range(2_000):
            if mine.take(KEY, INTERVAL_NS, 999 * INTERVAL_NS, now) == 0:
                os.write(writer, b".")

    def take_and_die() -> None:
        segment = attach_or_create(master.pid, Layout(8, 8, 8))
        mine = RateTable(segment, Ledger(segment))
        for now in range(100):
            if mine.take(KEY, INTERVAL_NS, 999 * INTERVAL_NS, now) == 0:
                os.write(writer, b".")
        os.kill(os.getpid(), signal.SIGKILL)

    with running(take, 4) as takers, running(take_and_die) as killed:
        for child in (*takers, *killed):
            child.wait()
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert len(file.read()) == 1000


def test_the_hash_of_a_key_depends_on_the_limit_and_the_secret() -> None:
    makers = [LimitKeys(secret, limit) for secret in (b"a" * 32, b"b" * 32) for limit in ("x", "y")]
    hashes = {keys.of(key) for keys in makers for key in (b"1", b"2")}
    assert len(hashes) == 8 and 0 not in hashes
    assert LimitKeys(b"a", "x").of(b"1") == LimitKeys(b"a", "x").of(b"1")
