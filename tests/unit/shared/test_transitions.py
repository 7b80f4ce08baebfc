"""The table of a server's observed states, and the diagram of it in docs/failures.md."""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.errors import InvariantError
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.transitions import TRANSITIONS, Check, Ejection, StateEvent, Transition, after

PAGE = Path(__file__).resolve().parents[3] / "docs" / "failures.md"
MACHINES = (Check, Ejection)


def pairs() -> Iterator[tuple[Check | Ejection, StateEvent]]:
    for machine in MACHINES:
        for state in machine:
            for event in StateEvent:
                yield state, event


def name(state: Check | Ejection) -> str:
    """As the diagram calls it."""
    if state == 0:
        return "unchecked" if isinstance(state, Check) else "not_ejected"
    return state.name.lower()


def test_no_pair_stands_in_it_twice() -> None:
    keys = [(type(row.before), row.before, row.event) for row in TRANSITIONS]
    assert len(keys) == len(set(keys))


def test_every_event_and_state_is_in_it_and_stays_in_its_machine() -> None:
    assert {row.event for row in TRANSITIONS} == set(StateEvent)
    for machine in MACHINES:
        rows = [row for row in TRANSITIONS if isinstance(row.before, machine)]
        assert {row.before for row in rows} == {row.after for row in rows} == set(machine)
        assert all(isinstance(row.after, machine) for row in rows)


@pytest.mark.parametrize(("state", "event"), list(pairs()), ids=str)
def test_a_pair_that_it_lacks_is_a_defect_of_ours(state: Check | Ejection, event: StateEvent) -> None:
    row = next((row for row in TRANSITIONS if (type(row.before), row.before, row.event) == (type(state), state, event)), None)
    if row is not None:
        assert after(state, event) is row
        return
    with pytest.raises(InvariantError, match=event.name):
        after(state, event)


def cells_of(segment: Segment) -> list[int]:
    return list(segment.cells)


@pytest.mark.parametrize("wrong", [
    lambda states: states.eject(0, StateEvent.TIME_OVER, 5),
    lambda states: states.eject(0, StateEvent.TRIAL_FAILED, 5),
    lambda states: states.begin_trial(0, 3),
    lambda states: states.pass_trial(0),
    lambda states: states.set_check(0, Check.CHECKING, "not checked yet"),
], ids=["no time runs", "no trial fails", "no trial is due", "no trial passes", "down is not checking"])
def test_a_step_that_it_lacks_leaves_the_state_untouched(segment: Segment, wrong: object) -> None:
    states = States(segment)
    states.set_check(0, Check.DOWN, "refused")
    before = cells_of(segment)
    assert callable(wrong)
    with pytest.raises(InvariantError):
        wrong(states)
    assert cells_of(segment) == before


def test_servers_on_trial_by_a_dead_worker_are_due_for_another(segment: Segment) -> None:
    states = States(segment)
    for slot, row in enumerate((2, 3, 2)):
        states.eject(slot, StateEvent.FAILED, 1)
        assert states.let_time_pass()
        states.begin_trial(slot, row)
    states.pass_trial(2)
    before = states.changes
    states.end_trials_of([2])
    assert list(states.ejection[:3]) == [Ejection.TRIAL_DUE, Ejection.ON_TRIAL, Ejection.NONE]
    assert states.changes > before


def test_a_repair_lets_every_worker_look_anew(segment: Segment) -> None:
    """A worker that died inside the lock may have changed a state and not counted that."""
    ledger, states = Ledger(segment), States(segment)
    ledger.acquire()
    before = states.changes
    ledger.acquire()  # taken for a section that was broken off
    ledger.release_lock()
    assert states.changes > before


def lines(rows: tuple[Transition, ...], machine: type[Check] | type[Ejection]) -> list[str]:
    return [f"    {name(row.before)} --> {name(row.after)}: {row.cause}" for row in rows if isinstance(row.before, machine)]


def test_the_diagram_in_the_documentation_is_this_table() -> None:
    diagrams = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [diagram.splitlines() for diagram in diagrams] == [
        [f"    [*] --> {name(machine(0))}", *lines(TRANSITIONS, machine)] for machine in (Ejection, Check)]
