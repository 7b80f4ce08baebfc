"""The trial of an ejected server: which request it is, and what becomes of it."""
from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from prefork_lb.errors import BadResponse, ClientGone, StaleConnection
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.transitions import Ejection
from prefork_lb.upstream.ejection import EjectionRules
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import UNLIMITED
from tests.unit.balance.candidates import REQUEST, new_policy
from tests.unit.shared.breaking import Break, broken_off, moments
from tests.unit.shared.processes import Child, Signals
from tests.unit.upstream.parts import make_pool, new_server

FAILURES = 2
RULES = EjectionRules(FAILURES, ms=60_000, penalty_s=0)


class Bench:
    """Two servers by the policy "first"; the first one fails."""

    def __init__(self, ledger: Ledger, limit: int = UNLIMITED) -> None:
        self.ledger, self.states = ledger, States(ledger.segment)
        self.pool = bench_pool(ledger, limit)

    def lease(self) -> Lease:
        return self.pool.lease(REQUEST, ())

    def leases(self, slot: int, count: int) -> list[Lease]:
        made = [self.lease() for _ in range(count)]
        assert {lease.server.slot for lease in made} == {slot}
        return made

    def eject(self) -> None:
        for lease in self.leases(0, FAILURES):
            lease.fail("refused")
        assert self.ejection == Ejection.EJECTED

    def let_time_pass(self) -> None:
        self.states.ejected_until[0] = 1
        with self.ledger.locked():
            assert self.states.let_time_pass()

    @property
    def ejection(self) -> int:
        return self.states.ejection[0]


def bench_pool(ledger: Ledger, limit: int = UNLIMITED) -> Pool:
    return make_pool(ledger, [new_server(0, limit=limit), new_server(1)], new_policy("first"), ejection=RULES)


@pytest.fixture
def bench(ledger: Ledger) -> Bench:
    return Bench(ledger)


def test_requests_from_before_the_ejection_that_fail_during_the_trial_do_not_decide_it(bench: Bench) -> None:
    """They would eject a server that is well again."""
    early = bench.leases(0, 3)
    bench.eject()
    bench.let_time_pass()
    trial = bench.lease()
    assert trial.server.slot == 0
    for lease in early:
        lease.fail("no response within 60 s")
    assert bench.ejection == Ejection.ON_TRIAL
    trial.succeed(reusable=False)
    assert bench.ejection == Ejection.NONE


def test_requests_from_before_the_ejection_that_end_well_during_the_trial_do_not_decide_it(bench: Bench) -> None:
    """They would bring a server back that hangs."""
    early = bench.leases(0, 1)
    bench.eject()
    bench.let_time_pass()
    trial = bench.lease()
    early[0].succeed(reusable=False)
    assert bench.ejection == Ejection.ON_TRIAL
    trial.fail("no response within 60 s")
    assert bench.ejection == Ejection.EJECTED and bench.states.ejections[0] == 2


def test_requests_from_before_the_ejection_that_fail_after_the_return_do_not_eject(bench: Bench) -> None:
    early = bench.leases(0, 3)
    bench.eject()
    bench.let_time_pass()
    bench.lease().succeed(reusable=False)
    for lease in early:
        lease.fail("no response within 60 s")
    assert bench.ejection == Ejection.NONE
    for lease in bench.leases(0, FAILURES):
        lease.fail("refused")
    assert bench.ejection == Ejection.EJECTED, "later ones do"


def test_there_is_one_trial_at_a_time_over_all_workers(segment: Segment, bench: Bench) -> None:
    other = bench_pool(Ledger(segment))
    bench.eject()
    other.lease(REQUEST, ()).abandon()  # it has looked
    bench.let_time_pass()
    assert [bench.lease().server.slot, bench.lease().server.slot, other.lease(REQUEST, ()).server.slot] == [0, 1, 1]


def test_a_trial_goes_on_for_as_long_as_its_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.eject()
    bench.let_time_pass()
    trial = bench.lease()
    monkeypatch.setattr("prefork_lb.shared.states.now_ms", lambda: 1 << 60)
    bench.pool.tick()  # as its worker does, four times a second
    assert not bench.states.is_time()
    assert bench.lease().server.slot == 1
    trial.abandon()


def test_a_trial_keeps_to_max_connections(ledger: Ledger) -> None:
    bench = Bench(ledger, limit=2)
    early = bench.leases(0, 2)
    for _ in range(FAILURES):
        bench.pool.outcomes.failed(bench.pool.servers[0], "refused", bench.states.changes, None)
    bench.let_time_pass()
    assert bench.lease().server.slot == 1 and bench.ejection == Ejection.TRIAL_DUE
    early[0].abandon()
    assert bench.lease().server.slot == 0 and bench.ejection == Ejection.ON_TRIAL


@pytest.mark.parametrize(("error", "state"), [
    (ClientGone("left"), Ejection.EJECTED),
    (StaleConnection("closed"), Ejection.EJECTED),
    (BadResponse("not HTTP"), Ejection.EJECTED),
])
def test_a_trial_that_ends_with_an_error(bench: Bench, error: Exception, state: Ejection) -> None:
    bench.eject()
    bench.let_time_pass()
    with pytest.raises(type(error)), bench.lease():
        raise error
    assert bench.ejection == state
    assert bench.states.ejections[0] == (2 if isinstance(error, BadResponse) else 1)


def test_a_client_that_leaves_after_the_head_of_a_failure_is_a_failed_trial(bench: Bench) -> None:
    bench.eject()
    bench.let_time_pass()
    with bench.lease() as trial:
        trial.note_status(503, 0)
        trial.keep()
    trial.abandon()
    assert bench.states.ejections[0] == 2


def test_a_client_that_leaves_after_a_good_head_is_a_trial_that_passed(bench: Bench) -> None:
    bench.eject()
    bench.let_time_pass()
    with bench.lease() as trial:
        trial.keep()
    trial.abandon()
    assert bench.ejection == Ejection.NONE


def test_the_trial_of_a_killed_worker_is_due_again(segment: Segment, bench: Bench) -> None:
    bench.eject()
    bench.let_time_pass()
    begun = Signals()

    def take_the_trial() -> None:
        lease = bench_pool(Ledger(segment)).lease(REQUEST, ())
        assert lease.server.slot == 0
        begun.send()
        signal.pause()

    child = Child(take_the_trial)
    begun.wait()
    assert bench.ejection == Ejection.ON_TRIAL and bench.lease().server.slot == 1
    child.kill()
    bench.ledger.reclaim_dead()
    assert bench.ejection == Ejection.TRIAL_DUE
    assert bench.lease().server.slot == 0
    begun.close()


@pytest.mark.parametrize("end", [lambda lease: lease.fail("late"), lambda lease: lease.succeed(reusable=False),
                                 lambda lease: lease.abandon()], ids=["fails", "succeeds", "is left"])
def test_a_stopped_worker_with_a_trial_keeps_no_server_out(
    segment: Segment, bench: Bench, monkeypatch: pytest.MonkeyPatch, end: Callable[[Lease], None]
) -> None:
    """It kept the server out until gunicorn killed the worker, minutes later. When it runs again its trial decides nothing."""
    bench.eject()
    bench.let_time_pass()

    def take_the_trial() -> None:
        lease = bench_pool(Ledger(segment)).lease(REQUEST, ())
        assert lease.server.slot == 0
        os.kill(os.getpid(), signal.SIGSTOP)
        end(lease)

    child = Child(take_the_trial)
    assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
    bench.pool.tick()
    assert not bench.states.is_time(), "a busy worker may be late"
    monkeypatch.setattr("prefork_lb.shared.states.now_ms", lambda: now_ms() + 6000)
    assert bench.states.is_time()
    with bench.ledger.locked():
        bench.states.let_time_pass()
    trial = bench.lease()
    assert trial.server.slot == 0 and bench.ejection == Ejection.ON_TRIAL
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait() == 0
    assert bench.ejection == Ejection.ON_TRIAL, "the trial of another worker"
    trial.succeed(reusable=False)
    assert bench.ejection == Ejection.NONE


def test_a_worker_that_stood_still_can_have_the_next_trial_too(bench: Bench) -> None:
    bench.eject()
    bench.let_time_pass()
    old = bench.lease()
    bench.states.trial_until[0] = 1
    with bench.ledger.locked():
        assert bench.states.let_time_pass()
    new = bench.lease()
    assert new.server.slot == 0
    old.fail("late")
    bench.pool.tick()
    assert bench.ejection == Ejection.ON_TRIAL
    new.succeed(reusable=False)
    assert bench.ejection == Ejection.NONE


@pytest.mark.parametrize("how", Break)
@pytest.mark.parametrize("end", [
    lambda lease: lease.succeed(reusable=False), lambda lease: lease.fail("refused"), lambda lease: lease.abandon(),
], ids=["succeeds", "fails", "is left"])
def test_a_worker_broken_off_at_any_instruction_of_a_trial_leaves_none_behind(
    segment: Segment, bench: Bench, how: Break, end: Callable[[Lease], None]
) -> None:
    bench.eject()

    def prepare() -> Callable[[], object]:
        pool = bench_pool(Ledger(segment))
        return lambda: end(pool.lease(REQUEST, ()))

    def due() -> None:
        bench.states.ejection[0], bench.states.ejected_until[0] = Ejection.TRIAL_DUE, 1
        bench.states.count_change()

    due()
    assert Child(lambda: prepare()()).wait() == 0  # so that each process finds what one before it has left
    bench.ledger.reclaim_dead()
    due()
    found = moments(how, prepare, segment.text, every=3)
    assert len(found) > 20
    for instruction in found:
        bench.ledger.reclaim_dead()
        due()
        assert not broken_off(instruction, how, prepare)
        bench.ledger.acquire()  # free, or repaired
        bench.ledger.release_lock()
        bench.ledger.reclaim_dead()
        assert bench.ejection != Ejection.ON_TRIAL, f"broken off at instruction {instruction}"
        assert bench.ledger.totals[0] == 0
