"""The split of a route: how even it is, and who stays where."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from prefork_lb.routing.split import Split
from prefork_lb.routing.spread import Spread


@pytest.mark.parametrize("start", [0, 1, 12345, 2**32 - 1])
@pytest.mark.parametrize("weights", [{"stable": 95, "canary": 5}, {"a": 1, "b": 1}, {"a": 5, "b": 3, "c": 2}, {"a": 999, "b": 1}])
def test_each_pool_gets_its_share_of_any_number_of_requests(weights: dict[str, int], start: int) -> None:
    split, counts, total = Split(weights, "", start), Counter[str](), sum(weights.values())
    for number in range(1, 20_001):
        counts[split.pick(())] += 1
        for pool, weight in weights.items():
            # The discrepancy of this sequence grows with the logarithm: at 20,000 it is under 5. By chance it would be 100.
            assert abs(counts[pool] - number * weight / total) < 5


@pytest.mark.parametrize("files", range(2, 41))
def test_no_file_of_a_page_always_meets_the_same_pool(files: int) -> None:
    """With a fixed cycle of 20, one of 20 files of a page would always come from the canary, and the others never."""
    split = Split({"stable": 95, "canary": 5}, "", 0)
    canaries = Counter(number % files for number in range(files * 2000) if split.pick(()) == "canary")
    assert len(canaries) == files and max(canaries.values()) < 2 * 2000 * 0.05


def test_workers_are_out_of_step() -> None:
    rng = random.Random(1)
    firsts = Counter(Split({"a": 1, "b": 1}, "", rng.getrandbits(32)).pick(()) for _ in range(1000))
    assert 400 < firsts["a"] < 600  # six standard deviations


def test_numbers_stay_below_the_whole() -> None:
    spread = Spread(7)
    assert {spread.below(3) for _ in range(100)} == {0, 1, 2}
    assert {spread.below(1) for _ in range(100)} == {0}


def test_a_client_stays_by_its_cookie() -> None:
    split = Split({"stable": 95, "canary": 5, "old": 0}, "release", 0)
    assert {split.pick([b"a=b; release=canary"]) for _ in range(100)} == {"canary"}
    for cookies in ([b"release=old"], [b"release=other"], [b"release=\xff"], [b"Release=canary"], []):
        assert {split.pick(cookies) for _ in range(100)} == {"stable", "canary"}
        assert split.told(cookies) == ""


def test_without_a_name_no_cookie_is_looked_at() -> None:
    split = Split({"a": 1, "b": 1}, "", 0)
    assert split.told([b"=b"]) == "" and {split.pick([b"=b"]) for _ in range(10)} == {"a", "b"}


def test_the_cookie_says_as_little_as_it_can() -> None:
    split = Split({"a": 1, "b": 1}, "release", 0)
    assert split.cookie_for("b", False) == (b"Set-Cookie", b"release=b; Path=/; HttpOnly; SameSite=Lax")
    assert split.cookie_for("b", True)[1].endswith(b"; Secure")


class Told:
    """What operators have set."""

    def __init__(self) -> None:
        self.changes, self.weights, self.reads = [0], dict[str, int](), 0

    def set(self, **weights: int) -> None:
        self.weights |= weights
        self.changes[0] += 1

    def in_force(self, configured: Mapping[str, int]) -> Mapping[str, int]:
        self.reads += 1
        return {**configured, **self.weights}


def test_a_weight_that_is_set_holds_from_the_next_pick_on() -> None:
    told = Told()
    split = Split({"stable": 95, "canary": 5}, "release", 0, told)
    counts = Counter(split.pick(()) for _ in range(1000))
    assert abs(counts["canary"] - 50) < 5 and told.reads == 0
    told.set(canary=95)
    counts = Counter(split.pick(()) for _ in range(1000))
    assert abs(counts["canary"] - 500) < 5 and told.reads == 1
    assert split.weights == {"stable": 95, "canary": 95}


def test_clients_of_a_pool_leave_it_with_its_weight_and_the_others_stay() -> None:
    told = Told()
    split = Split({"stable": 95, "canary": 5, "old": 0}, "release", 0, told)
    told.set(canary=0, old=1)
    assert {split.pick([b"release=stable"]) for _ in range(100)} == {"stable"}
    assert {split.pick([b"release=old"]) for _ in range(100)} == {"old"}
    assert "canary" not in {split.pick([b"release=canary"]) for _ in range(1000)}
    assert [split.has(pool) for pool in ("stable", "canary", "old")] == [True, False, True]


def test_weights_that_were_set_before_the_worker_began_hold_at_its_first_pick() -> None:
    told = Told()
    told.set(canary=0)
    assert {Split({"stable": 1, "canary": 1}, "", 0, told).pick(()) for _ in range(10)} == {"stable"}
