"""What other balancers tell counts as load, in C and in Python, and is forgotten when they fall silent."""
from __future__ import annotations

import os
import signal

import pytest

from prefork_lb.shared import elsewhere as elsewhere_module
from prefork_lb.shared import layout as at
from prefork_lb.shared.balancers import Balancer, balancers, write_balancers
from prefork_lb.shared.elsewhere import SILENT_MS, Elsewhere
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from tests.unit.shared.processes import Child


@pytest.fixture
def ledger(segment: Segment) -> Ledger:
    return Ledger(segment)


@pytest.fixture
def states(segment: Segment) -> States:
    return States(segment)


@pytest.fixture
def elsewhere(segment: Segment, ledger: Ledger, states: States) -> Elsewhere:
    return Elsewhere(segment, ledger, states)


def test_it_counts_beside_penalties(elsewhere: Elsewhere, ledger: Ledger) -> None:
    ledger.penalise(1, 2)
    elsewhere.set({0: 4, 1: 3})
    assert ledger.penalties.tolist()[:3] == [4, 5, 0]
    elsewhere.set({1: 1})
    assert ledger.penalties.tolist()[:3] == [0, 3, 0]
    ledger.penalise(1, -2)
    elsewhere.set({})
    assert not any(ledger.penalties)


def test_a_writer_that_is_killed_between_two_stores_leaves_nothing_wrong(segment: Segment, ledger: Ledger) -> None:
    """The next owner of the lock adds up anew."""
    def write() -> None:
        mine = Ledger(segment, takes_row=False)

        class Killing(Elsewhere):
            def __init__(self) -> None:
                super().__init__(segment, mine, States(segment))
                mine.penalties = Deadly()  # type: ignore[assignment]

        Killing().set({0: 5})

    class Deadly:
        def __getitem__(self, slot: int) -> int:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    assert Child(write).wait() == -signal.SIGKILL
    assert ledger.penalties[0] == 0
    with ledger.locked():
        pass
    assert ledger.penalties[0] == 5
    assert segment.cells[at.H_REPAIRS] == 1


def test_after_a_second_of_silence_it_goes_alone(
    elsewhere: Elsewhere, ledger: Ledger, states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 50_000
    monkeypatch.setattr(elsewhere_module, "now_ms", lambda: now)
    elsewhere.set({0: 4})
    states.set_slots(0, 7, 5)
    states.checked_elsewhere[0] = now + 400
    elsewhere.note_round(900)
    now += SILENT_MS
    elsewhere.go_alone_if_silent()
    assert elsewhere.is_together and ledger.penalties[0] == 4 and states.slots(0) == 7
    now, changes = now + 1, states.changes
    elsewhere.go_alone_if_silent()
    assert not elsewhere.is_together
    assert (ledger.penalties[0], states.slots(0), states.checked_elsewhere[0]) == (0, 5, 0)
    assert states.changes > changes  # workers read the limit again


def test_without_the_section_each_limit_is_its_own_again(elsewhere: Elsewhere, states: States, segment: Segment) -> None:
    states.set_slots(0, 7, 5)
    elsewhere.set({0: 4})
    write_balancers(segment, [balancer("a")])
    elsewhere.forget()
    assert states.slots(0) is None and not any(elsewhere.loads) and balancers(segment) == []


def balancer(name: str, is_self: bool = False, heard_ms: int = 1) -> Balancer:
    return Balancer(name, is_self, heard_ms, 1, 2, 3, False)


def test_balancers_keep_their_entries(segment: Segment) -> None:
    write_balancers(segment, [balancer("b"), balancer("a", is_self=True)])
    write_balancers(segment, [balancer("b", heard_ms=9), balancer("c")])
    assert balancers(segment) == [balancer("b", heard_ms=9), balancer("c")]
    write_balancers(segment, [balancer(f"{number:02}") for number in range(70)])
    assert len(balancers(segment)) == at.BALANCERS


def test_one_that_finds_no_room_keeps_no_other_from_being_written(segment: Segment) -> None:
    names = [f"{number:02}" for number in range(1, at.BALANCERS + 1)]
    write_balancers(segment, [balancer(name) for name in names])
    write_balancers(segment, [balancer("00"), *(balancer(name, heard_ms=9) for name in names)])
    assert [(each.name, each.heard_ms) for each in balancers(segment)] == [(name, 9) for name in names]
