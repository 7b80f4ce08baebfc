"""Requests in flight by key: what a key may have, and what a full table and a killed process leave."""
from __future__ import annotations

import os
import random

import pytest

from prefork_lb.errors import InvariantError
from prefork_lb.shared.key_claims import NO_ROOM, REACHED, KeyClaims, KeyInFlight, KeyShares
from prefork_lb.shared.layout import KEYS_IN_SET
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from tests.unit.shared.breaking import Break, broken_off, length
from tests.unit.shared.processes import Child, Master, running

KEY, SETS = 12345, 4
ROOM = Layout(8, 8, 8, keys=SETS * KEYS_IN_SET)


@pytest.fixture
def keyed(master: Master) -> Segment:
    return attach_or_create(master.pid, ROOM)


@pytest.fixture
def claims(keyed: Segment) -> KeyClaims:
    return KeyClaims(keyed, Ledger(keyed))


def totals(segment: Segment) -> list[int]:
    """Those that are not 0."""
    return sorted(filter(None, segment.cells[segment.layout.key_totals].tolist()))


def test_a_key_has_as_many_as_its_limit_and_again_when_one_ends(claims: KeyClaims) -> None:
    entries = [claims.claim(KEY, 3) for _ in range(5)]
    assert entries[3:] == [REACHED, REACHED] and len(set(entries[:3])) == 1
    claims.release(entries[0])
    assert [claims.claim(KEY, 3) for _ in range(2)] == [entries[0], REACHED]


def test_keys_do_not_share(claims: KeyClaims, keyed: Segment) -> None:
    for key in (KEY, KEY + SETS, KEY + 1, -KEY):
        assert [claims.claim(key, 1) >= 0, claims.claim(key, 1)] == [True, REACHED]
    assert totals(keyed) == [1] * 4


def test_a_set_that_is_full_has_no_room_for_another_key_until_one_is_free(claims: KeyClaims, keyed: Segment) -> None:
    entries = [claims.claim(KEY + n * SETS, 1) for n in range(KEYS_IN_SET)]
    assert claims.claim(KEY + KEYS_IN_SET * SETS, 1) == NO_ROOM
    assert claims.claim(KEY + 1, 1) >= 0  # another set
    claims.release(entries[7])
    assert claims.claim(KEY + KEYS_IN_SET * SETS, 1) == entries[7]
    assert len(totals(keyed)) == KEYS_IN_SET + 1


def test_keys_that_come_once_leave_nothing(claims: KeyClaims, keyed: Segment) -> None:
    rng = random.Random(1)
    for _ in range(20_000):
        claims.release(claims.claim(rng.getrandbits(62), 1))
    assert totals(keyed) == []


def test_a_release_without_a_claim_is_refused(claims: KeyClaims, keyed: Segment) -> None:
    entry = claims.claim(KEY, 1)
    claims.release(entry)
    with pytest.raises(InvariantError):
        claims.release(entry)
    assert totals(keyed) == []


def test_workers_share_a_key_and_a_killed_one_gives_back_what_it_had(keyed: Segment, master: Master) -> None:
    """Four workers claim all that a key may have; those that the three killed ones had are free again, and no more."""
    reader, writer = os.pipe()
    mine = Ledger(keyed)

    def claim() -> None:
        segment = attach_or_create(master.pid, ROOM)
        claims = KeyClaims(segment, Ledger(segment))
        if all(claims.claim(KEY, 1000) >= 0 for _ in range(250)):
            os.write(writer, b".")
        os.read(gate, 1)

    gate, opened = os.pipe()
    with running(claim, 4) as children:
        for _ in children:
            assert os.read(reader, 1) == b"."
        claims = KeyClaims(keyed, mine)
        assert totals(keyed) == [1000] and claims.claim(KEY, 1000) == REACHED
        for child in children[:3]:
            child.kill()
        mine.reclaim_dead()
        assert totals(keyed) == [250]
        assert sum(claims.claim(KEY, 1000) >= 0 for _ in range(1001)) == 750
        os.write(opened, b".")
        assert children[3].wait() == 0
    mine.reclaim_dead()
    assert totals(keyed) == [750]
    for descriptor in (reader, writer, gate, opened):
        os.close(descriptor)


@pytest.mark.parametrize("how", Break)
def test_a_worker_broken_off_at_any_moment_leaves_nothing(keyed: Segment, master: Master, how: Break) -> None:
    """In the middle of a claim and a release; another key may come into the entry meanwhile."""
    survivor = Ledger(keyed)
    claims = KeyClaims(keyed, survivor)

    def prepare() -> object:
        segment = attach_or_create(master.pid, ROOM)
        theirs = KeyClaims(segment, Ledger(segment))
        return lambda: theirs.release(theirs.claim(KEY, 1))

    for instruction in range(1, length(prepare) + 1, 3):
        broken_off(instruction, how, prepare)
        survivor.reclaim_dead()
        assert totals(keyed) == [], f"broken off at instruction {instruction}"
        claims.release(claims.claim(KEY, 1))


def test_a_new_worker_begins_with_nothing_of_the_one_before_in_its_row(keyed: Segment, master: Master) -> None:
    def claim() -> None:
        segment = attach_or_create(master.pid, ROOM)
        assert KeyClaims(segment, Ledger(segment)).claim(KEY, 1) >= 0

    assert Child(claim).wait() == 0
    ledger = Ledger(keyed)  # gives the row back, and takes it
    assert totals(keyed) == []
    claims = KeyClaims(keyed, ledger)
    claims.release(claims.claim(KEY, 1))


@pytest.fixture
def shares(keyed: Segment) -> KeyShares:
    return KeyShares(keyed, Ledger(keyed, takes_row=False))


def test_a_share_bounds_a_key_below_its_limit_until_it_is_taken_back(claims: KeyClaims, shares: KeyShares) -> None:
    assert claims.claim(KEY, 3) >= 0
    shares.set({KEY: 2, KEY + 1: 0, KEY + 2: 9})
    assert [claims.claim(KEY, 3) >= 0, claims.claim(KEY, 3), claims.claim(KEY + 1, 3)] == [True, REACHED, REACHED]
    assert [claims.claim(KEY + 2, 1) >= 0, claims.claim(KEY + 2, 1)] == [True, REACHED]  # more than the limit allows
    assert sorted(shares.in_flight()) == [
        KeyInFlight(KEY, 2, 3), KeyInFlight(KEY + 1, 0, 3), KeyInFlight(KEY + 2, 1, 1)]
    shares.set({KEY + 1: 1})
    assert [claims.claim(KEY, 3) >= 0, claims.claim(KEY, 3), claims.claim(KEY + 1, 3) >= 0] == [True, REACHED, True]


def test_a_share_waits_for_its_key_while_there_is_room_for_others(claims: KeyClaims, shares: KeyShares, keyed: Segment) -> None:
    shares.set({KEY: 0})
    entries = [claims.claim(KEY + n * SETS, 1) for n in range(1, KEYS_IN_SET)]
    assert min(entries) >= 0 and claims.claim(KEY, 5) == REACHED
    last = claims.claim(KEY + KEYS_IN_SET * SETS, 1)
    assert last >= 0 and last not in entries  # the entry of the share, which had no request
    shares.set({KEY: 0})
    assert claims.claim(KEY, 5) == NO_ROOM
    claims.release(entries[3])
    shares.set({KEY: 0})
    assert claims.claim(KEY, 5) == REACHED
    assert not any(keyed.cells[keyed.layout.key_shares][entry] for entry in entries if entry != entries[3])


@pytest.mark.parametrize("how", Break)
def test_a_worker_broken_off_while_it_takes_the_place_of_a_share_does_not_take_the_share(
        keyed: Segment, master: Master, shares: KeyShares, how: Break) -> None:
    survivor = Ledger(keyed)
    claims, other = KeyClaims(keyed, survivor), KEY + KEYS_IN_SET * SETS
    begin = KEY % SETS * KEYS_IN_SET

    def prepare() -> object:
        segment = attach_or_create(master.pid, ROOM)
        theirs = KeyClaims(segment, Ledger(segment))
        return lambda: theirs.claim(other, 1)

    shares.set({KEY + n * SETS: 0 for n in range(KEYS_IN_SET)})
    for instruction in range(1, length(prepare) + 1, 3):
        broken_off(instruction, how, prepare)
        survivor.reclaim_dead()
        hashes = keyed.cells[keyed.layout.key_hashes][begin:begin + KEYS_IN_SET].tolist()
        if other in hashes:
            assert claims.claim(other, 1) == begin + hashes.index(other), f"broken off at instruction {instruction}"
            claims.release(begin + hashes.index(other))
        shares.set({})
        shares.set({KEY + n * SETS: 0 for n in range(KEYS_IN_SET)})
