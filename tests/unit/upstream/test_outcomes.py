"""What becomes of a server after its requests."""
from __future__ import annotations

from typing import Any

import pytest

from prefork_lb.shared import states as states_module
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.transitions import Check, Ejection
from prefork_lb.upstream import ejection as ejection_module
from prefork_lb.upstream import outcomes as outcomes_module
from prefork_lb.upstream.ejection import EjectionRules, Trial
from tests.unit.upstream.parts import new_outcomes, new_server

RULES: dict[str, Any] = {"failures": 3, "ms": 10_000, "max_ms": 45_000, "penalty_s": 0}


class Bench:
    """Four servers, a clock that the test moves."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, servers: int = 4, **rules: Any) -> None:
        self.ledger, self.states = ledger, States(ledger.segment)
        self.servers = [new_server(slot) for slot in range(servers)]
        self.outcomes = new_outcomes("web", self.servers, self.states, ledger, EjectionRules(**(RULES | rules)))
        self.now = 1_000_000
        for place in (ejection_module, outcomes_module, states_module):
            monkeypatch.setattr(place, "now_ms", lambda: self.now)

    def fail(self, slot: int, times: int = 1, penalty_s: float = 0.0, seen: int | None = None,
             trial: Trial | None = None) -> None:
        seen = self.states.changes if seen is None else seen
        for _ in range(times):
            self.outcomes.penalise(self.servers[slot], penalty_s)
            self.outcomes.failed(self.servers[slot], "it broke", seen, trial)

    def succeed(self, slot: int, seen: int | None = None, trial: Trial | None = None) -> None:
        self.outcomes.succeeded(self.servers[slot], self.states.changes if seen is None else seen, trial)

    def out_s(self, slot: int) -> float:
        until = self.states.ejected_until[slot]
        return (until - self.now) / 1000 if self.states.ejection[slot] == Ejection.EJECTED else 0.0

    def try_it(self, slot: int) -> Trial:
        """Its time is over, and its trial begins."""
        self.now = self.states.ejected_until[slot]
        with self.ledger.locked():
            assert self.states.let_time_pass()
            return self.outcomes.ejections.begin_trial(self.servers[slot])


@pytest.fixture
def bench(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(ledger, monkeypatch)


def test_failures_in_a_row_eject(bench: Bench) -> None:
    bench.fail(0, 2)
    bench.succeed(0)
    bench.fail(0, 2)
    assert not bench.out_s(0)
    bench.fail(0)
    assert 10 <= bench.out_s(0) <= 11
    assert not any(bench.out_s(slot) for slot in (1, 2, 3))


def test_the_last_failure_of_a_server_is_noted(bench: Bench) -> None:
    assert bench.states.failed_at[0] == 0
    bench.fail(0)  # by its status, which the counts of answers tell
    assert bench.states.failed_at[0] == 0
    bench.outcomes.note_failure(bench.servers[0], "it broke")
    bench.succeed(0)
    assert bench.states.failed_at[0] > 0
    assert bench.states.failure(0) == "it broke"
    assert [bench.states.failed_at[slot] for slot in (1, 2, 3)] == [0, 0, 0]


def test_it_is_out_longer_each_time_up_to_the_cap(bench: Bench) -> None:
    bench.fail(0, 3)
    for number in (2, 3, 4, 5, 6):
        bench.fail(0, trial=bench.try_it(0))
        base = min(10 * number, 45)
        assert base <= bench.out_s(0) <= base * 1.1, number


def test_jitter_sets_servers_apart(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ledger, monkeypatch, servers=4, max_ejected=100)
    for slot in range(3):
        bench.fail(slot, 3)
    assert len({bench.out_s(slot) for slot in range(3)}) == 3


def test_a_good_trial_brings_it_back(bench: Bench) -> None:
    bench.fail(0, 3)
    trial = bench.try_it(0)
    before = bench.states.changes
    bench.succeed(0, trial=trial)
    assert not bench.states.is_ejected(0) and bench.states.changes > before
    assert bench.states.risen[0] == bench.now and bench.outcomes.streaks[0] == 0


@pytest.mark.parametrize("is_trial_under_way", [False, True])
def test_requests_that_are_no_trial_do_not_decide_over_an_ejected_server(bench: Bench, is_trial_under_way: bool) -> None:
    """They were sent before the ejection, or in a panic."""
    bench.fail(0, 3)
    trial = bench.try_it(0) if is_trial_under_way else None
    state, until, ejections = bench.states.ejection[0], bench.states.ejected_until[0], bench.states.ejections[0]
    bench.succeed(0)
    bench.fail(0, 5)
    assert (bench.states.ejection[0], bench.states.ejected_until[0], bench.states.ejections[0]) == (state, until, ejections)
    if trial is not None:
        bench.succeed(0, trial=trial)
        assert not bench.states.is_ejected(0), "the trial itself still decides"


def test_failures_of_requests_from_before_the_ejection_do_not_count_after_the_return(bench: Bench) -> None:
    seen = bench.states.changes
    bench.fail(0, 3)
    bench.succeed(0, trial=bench.try_it(0))
    bench.fail(0, 5, seen=seen)
    assert not bench.out_s(0) and bench.outcomes.streaks[0] == 0
    bench.fail(0, 2)
    bench.succeed(0, seen=seen)
    assert bench.outcomes.streaks[0] == 2, "nor do their successes"
    bench.fail(0)
    assert bench.out_s(0)


def test_what_was_sent_before_a_server_was_made_ready_again_says_nothing(bench: Bench) -> None:
    seen = bench.states.changes
    bench.states.set_admin(0, Admin.MAINTENANCE)
    bench.states.set_admin(0, Admin.READY)
    bench.fail(0, 5, seen=seen)
    assert not bench.out_s(0)


def test_a_trial_decides_once(bench: Bench) -> None:
    bench.fail(0, 3)
    trial = bench.try_it(0)
    bench.succeed(0, trial=trial)
    bench.succeed(0, trial=trial)
    bench.fail(0, seen=0, trial=trial)
    bench.outcomes.left(trial)
    assert not bench.states.is_ejected(0)


def test_a_trial_that_the_server_answers_with_come_later_brings_it_back(bench: Bench) -> None:
    bench.fail(0, 3)
    bench.outcomes.refused(bench.try_it(0))
    assert not bench.states.is_ejected(0)


def test_a_trial_whose_response_goes_on_brings_the_server_back(bench: Bench) -> None:
    """A tunnel or a download of hours must not keep it out."""
    bench.fail(0, 3)
    trial = bench.try_it(0)
    bench.now += 60_000
    bench.outcomes.tick()
    assert bench.states.ejection[0] == Ejection.ON_TRIAL, "without an answer it goes on for as long as its request"
    trial.is_answered = True
    bench.outcomes.tick()
    assert not bench.states.is_ejected(0)


@pytest.mark.parametrize(("ran_ms", "pause_s"), [(0, 1.0), (100, 1.0), (3000, 12.0), (60_000, 45.0)])
def test_a_trial_whose_client_left_is_made_again_soon(bench: Bench, ran_ms: int, pause_s: float) -> None:
    """A server that hangs must not get one impatient client after the other."""
    bench.fail(0, 3)
    trial = bench.try_it(0)
    bench.now += ran_ms
    bench.outcomes.left(trial)
    assert (bench.out_s(0), bench.states.ejections[0]) == (pause_s, 1)


def test_a_trial_whose_client_left_after_the_head_brings_the_server_back(bench: Bench) -> None:
    bench.fail(0, 3)
    trial = bench.try_it(0)
    trial.is_answered = True
    bench.outcomes.left(trial)
    assert not bench.states.is_ejected(0)


def test_time_that_it_was_well_makes_the_next_ejection_shorter(bench: Bench) -> None:
    bench.fail(0, 3)
    for _ in range(2):
        bench.fail(0, trial=bench.try_it(0))
    bench.succeed(0, trial=bench.try_it(0))
    bench.now += 20_000  # two ejections' worth
    bench.fail(0, 3)
    assert 20 <= bench.out_s(0) <= 22


def test_failures_that_were_on_their_way_do_not_prolong_an_ejection(bench: Bench) -> None:
    bench.fail(0, 3)
    until = bench.states.ejected_until[0]
    bench.now += 500
    bench.fail(0, 5)
    assert bench.states.ejected_until[0] == until


@pytest.mark.parametrize(("servers", "percent", "most"), [
    (4, 50, 2), (4, 100, 3), (4, 0, 1), (3, 50, 1), (2, 50, 1), (1, 100, 0),
])
def test_no_more_than_allowed_and_never_the_last(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, servers: int, percent: int, most: int
) -> None:
    bench = Bench(ledger, monkeypatch, servers=servers, max_ejected=percent)
    for slot in range(servers):
        bench.fail(slot, 5)
    assert sum(bool(bench.out_s(slot)) for slot in range(servers)) == most


@pytest.mark.parametrize("other", ["drain", "down"])
def test_never_the_last_that_is_usable(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    bench = Bench(ledger, monkeypatch, servers=2)
    if other == "drain":
        bench.states.admin[1] = Admin.DRAIN
    else:
        bench.states.check[1] = Check.DOWN
    bench.fail(0, 5)
    assert not bench.out_s(0)


def test_a_share_of_the_window_ejects_without_a_row(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ledger, monkeypatch, failures=0, share=50, window_ms=10_000, least_requests=10)

    def ask(failed: bool) -> None:
        with ledger.locked():
            ledger.claim(0)
        ledger.release(0, failed)
        if failed:
            bench.fail(0)

    for number in range(9):
        ask(failed=number % 2 == 0)
    assert not bench.out_s(0), "too few requests to tell"
    ask(failed=False)
    ask(failed=True)
    assert bench.out_s(0), "6 of 11"


def test_the_window_forgets(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ledger, monkeypatch, failures=0, share=50, window_ms=10_000, least_requests=10)
    for failed in [True] * 9 + [False] * 8 + [True]:
        with ledger.locked():
            ledger.claim(0)
        ledger.release(0, failed)
        if failed:
            if bench.outcomes.streaks[0] == 9:
                bench.now += 10_000
            bench.fail(0)
    assert not bench.out_s(0)


def test_a_failure_counts_as_load_until_its_time_is_over(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ledger, monkeypatch, failures=0, penalty_s=1)
    bench.fail(0, 2)
    bench.outcomes.penalise(bench.servers[1], penalty_s=5)  # by Retry-After
    bench.outcomes.refused(trial=None)
    assert list(ledger.penalties)[:3] == [2, 1, 0]
    bench.now += 999
    bench.outcomes.tick()
    assert list(ledger.penalties)[:3] == [2, 1, 0]
    bench.now += 1
    bench.outcomes.tick()
    assert list(ledger.penalties)[:3] == [0, 1, 0]
    bench.now += 4000
    bench.outcomes.tick()
    assert list(ledger.penalties)[:3] == [0, 0, 0]
    assert bench.outcomes.streaks[1] == 0, "to be told to wait is no failure"


def test_a_failure_counts_for_twenty_times_the_usual_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ledger, monkeypatch, failures=0, penalty_s=1)
    for _ in range(100):
        bench.outcomes.times.note(0.5)
    bench.fail(0)
    bench.now += 9_900
    bench.outcomes.tick()
    assert ledger.penalties[0] == 1
    bench.now += 1_600  # a bucket of the histogram is an eighth wide at most
    bench.outcomes.tick()
    assert ledger.penalties[0] == 0


def test_without_penalties_there_are_none(bench: Bench) -> None:
    bench.fail(0, penalty_s=5)
    assert not any(bench.ledger.penalties)
