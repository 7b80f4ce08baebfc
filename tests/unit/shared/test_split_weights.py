"""Weights of splits that operators set at run time."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadValue, Outdated, Refused
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import (
    ConfiguredSplit,
    RouteWeights,
    forget_other_routes,
    set_weights,
    weights_in_force,
    write_set_weights,
)
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import register
from tests.unit.shared.breaking import Break, run_until
from tests.unit.shared.saving import entries

LONG = "p" * 63
CONFIGURED = {"stable": 95, "canary": 5}
SPLIT = ConfiguredSplit(7, 3, "any host; /api", "", CONFIGURED)


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    ledger = Ledger(segment)
    register(segment, ledger, entries("web"))
    return ledger


@pytest.fixture
def steering(segment: Segment, ledger: Ledger) -> Steering:
    return Steering(segment, ledger, States(segment))


def test_a_worker_sees_what_was_set_for_its_route_alone(segment: Segment, ledger: Ledger) -> None:
    mine, other = RouteWeights(segment, ledger, 7), RouteWeights(segment, ledger, 8)
    assert mine.in_force(CONFIGURED) == CONFIGURED
    before = mine.changes[0]
    with ledger.locked():
        write_set_weights(segment, 7, {"canary": 20, LONG: 0})
    assert mine.changes[0] > before
    assert mine.in_force(CONFIGURED) == {"stable": 95, "canary": 20} and other.in_force(CONFIGURED) == CONFIGURED
    with ledger.locked():
        write_set_weights(segment, 7, {"canary": 30, "stable": None})
    assert set_weights(segment) == {7: {"canary": 30, LONG: 0}}
    with ledger.locked():
        write_set_weights(segment, 7, {"canary": None, LONG: None})
    assert set_weights(segment) == {} and mine.in_force(CONFIGURED) == CONFIGURED


def test_what_was_set_of_pools_that_have_left_the_split_counts_for_nothing() -> None:
    assert weights_in_force(CONFIGURED, {"old": 50, "canary": 6}) == {"stable": 95, "canary": 6}
    # A reload has taken the only pool away that had weight.
    assert weights_in_force(CONFIGURED, {"old": 50, "stable": 0, "canary": 0}) == CONFIGURED


def test_a_route_that_a_reload_takes_away_is_forgotten(segment: Segment, ledger: Ledger) -> None:
    with ledger.locked():
        for route in (7, 8):
            write_set_weights(segment, route, {"canary": route})
        changes = segment.cells[at.H_SPLITS]
        forget_other_routes(segment, [7, 9])
        assert set_weights(segment) == {7: {"canary": 7}} and segment.cells[at.H_SPLITS] > changes
        changes = segment.cells[at.H_SPLITS]
        forget_other_routes(segment, [7])
        assert segment.cells[at.H_SPLITS] == changes


def test_a_change_without_room_is_refused_whole(segment: Segment, ledger: Ledger) -> None:
    with ledger.locked():
        for route in range(1, at.SPLIT_WEIGHTS):
            write_set_weights(segment, route, {"a": route})
        with pytest.raises(Refused):
            write_set_weights(segment, 1, {"a": 5, "b": 6, "c": 7})
        assert set_weights(segment)[1] == {"a": 1}
        write_set_weights(segment, 1, {"a": 5, "b": 6})
        assert set_weights(segment)[1] == {"a": 5, "b": 6}


def test_a_change_that_is_broken_off_leaves_old_weights_or_new_ones(segment: Segment, ledger: Ledger) -> None:
    """Broken off anywhere, a weight has the value of before or of after, and no pool has a wrong name."""
    def change() -> None:
        write_set_weights(segment, 7, {"canary": 20, "stable": 80})

    def restore() -> None:
        write_set_weights(segment, 7, {"canary": 1, "stable": None})

    with ledger.locked():
        instruction, is_whole = 1, False
        while not is_whole:
            restore()
            is_whole = run_until(instruction, Break.RAISE, change)
            instruction += 7
            found = set_weights(segment)[7]
            assert found["canary"] in (1, 20) and found.get("stable", 80) == 80 and set(found) <= {"canary", "stable"}
    assert found == {"canary": 20, "stable": 80}


def test_an_operators_change_is_told(segment: Segment, steering: Steering) -> None:
    assert steering.set_split(SPLIT, {"canary": 20}, "ann") == "stable 95, canary 20, before: stable 95, canary 5"
    assert steering.set_split(SPLIT, {"canary": 20}, "bob") == ""
    assert steering.set_split(SPLIT, {"canary": None}, "bob") == "stable 95, canary 5, before: stable 95, canary 20"
    events = [(event.kind, event.text, event.who) for event in recent(segment)]
    assert events[-2] == ("split", "stable 95, canary 20, before: stable 95, canary 5 (route 3: any host; /api)", "ann")
    assert events[-1][2] == "bob" and len([kind for kind, *_ in events if kind == "split"]) == 2


@pytest.mark.parametrize("weights", [{"other": 1}, {"canary": -1}, {"canary": 1_000_001}, {"canary": 0, "stable": 0},
                                     {"canary": 7, "stable": -1}])
def test_weights_that_no_split_may_have_change_nothing(segment: Segment, steering: Steering, weights: dict[str, int]) -> None:
    with pytest.raises(BadValue):
        steering.set_split(SPLIT, weights, "ann")
    assert set_weights(segment) == {} and not recent(segment)


def test_the_last_pool_with_weight_keeps_it(steering: Steering) -> None:
    steering.set_split(SPLIT, {"stable": 0}, "ann")
    with pytest.raises(BadValue, match="at least one must have more"):
        steering.set_split(SPLIT, {"canary": 0}, "ann")


def test_a_change_of_a_split_that_was_changed_meanwhile_is_refused(segment: Segment, steering: Steering) -> None:
    seen = "95-5"
    steering.set_split(SPLIT, {"canary": 6}, "bob", seen.__eq__)
    with pytest.raises(Outdated, match="it is stable 95, canary 6 now"):
        steering.set_split(SPLIT, {"canary": 7}, "ann", seen.__eq__)
    assert set_weights(segment) == {7: {"canary": 6}}
