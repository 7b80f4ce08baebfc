"""The pool: who is a candidate, and what a policy that misbehaves leaves behind."""
from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from prefork_lb.balance.policy import Candidate, Policy, PolicyMemory, PolicySetup, RequestInfo
from prefork_lb.balance.registry import make_policy
from prefork_lb.errors import InvariantError, NoUsableServer, PoolFull
from prefork_lb.native.loader import FastClaims, native
from prefork_lb.shared.elsewhere import Elsewhere
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.upstream.compiled_picker import fast_claims
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server
from tests.unit.balance.candidates import REQUEST, new_policy
from tests.unit.shared.breaking import Break, broken_off, moments
from tests.unit.shared.processes import Child
from tests.unit.upstream.parts import NotedStream, make_pool, new_pool, new_server

SLOTS = 8


def picked(pool: Pool, *tried: Server) -> Server:
    return pool.lease(REQUEST, tried).server


def lock_is_free(ledger: Ledger) -> bool:
    """Whether another process gets it."""

    def take() -> None:
        ledger.acquire()
        ledger.release_lock()

    return Child(take).wait() == 0


def test_a_lease_is_a_claim_on_the_server_that_the_policy_picked(ledger: Ledger) -> None:
    servers = [new_server(slot) for slot in (2, 5)]
    lease = new_pool(ledger, *servers).lease(REQUEST, ())
    assert isinstance(lease, Lease) and lease.server is servers[0] and lease.stream is None
    assert ledger.totals.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    lease.abandon()
    assert ledger.totals.tolist() == [0] * SLOTS


def test_the_policy_sees_the_claims_of_all_workers(segment: Segment, ledger: Ledger) -> None:
    one, other = new_server(0), new_server(1)
    for _ in range(3):
        new_pool(Ledger(segment), new_server(0)).lease(REQUEST, ())
    pool = new_pool(ledger, one, other)
    assert [picked(pool) for _ in range(3)] == [other, other, other]
    assert one.in_flight == 3


def test_a_full_server_is_no_candidate_until_it_has_room(ledger: Ledger) -> None:
    small, large = new_server(0, limit=1), new_server(1)
    pool = new_pool(ledger, small, large, policy=new_policy("first"))
    lease = pool.lease(REQUEST, ())
    assert lease.server is small
    assert picked(pool) is large
    lease.abandon()
    assert picked(pool) is small


class StopsBefore:
    """Stops this process before the first `call`: the worker has looked, and is not in the ledger's section yet."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._has_stopped = call, False

    def __call__(self, *arguments: Any) -> Any:
        if not self._has_stopped:
            self._has_stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return self._call(*arguments)

    @property
    def claim(self) -> Callable[[], int]:
        """For what stands in for the compiled claims."""
        return self


def drained_while_stopped(segment: Segment, ledger: Ledger, claim: Callable[[], object]) -> tuple[list[int], list[int]]:
    """Stop a worker in the middle of `claim`, drain server 0: what is in flight then, and after the worker's claim."""
    child = Child(claim)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "it claimed without a stop"
    with ledger.locked():
        States(segment).set_admin(0, Admin.DRAIN)
        seen = ledger.totals.tolist()[:2]
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait() == 0
    return seen, ledger.totals.tolist()[:2]


@pytest.mark.skipif(native() is None, reason="prefork_lb.native.claims was not built: it takes a C compiler")
def test_a_server_drained_while_the_compiled_claim_is_made_gets_no_request(segment: Segment, ledger: Ledger) -> None:
    """`drain --wait` looks under the lock before the claim, and says that nothing is in flight."""
    entries = [ServerEntry(f"127.0.0.1:{8000 + slot}", 1, 0, False) for slot in range(2)]
    slots = register(segment, ledger, [PoolEntry("web", entries)])["web"]

    def claim() -> None:
        worker = Ledger(segment)
        servers = [new_server(slot) for slot in slots.slots]
        policy = make_policy("least-connections", PolicySetup(random.Random(1), PolicyMemory(slots.cells, slots.columns)))
        made: list[FastClaims] = []

        def make(usable: Sequence[Server], seen: int) -> FastClaims:
            claims = fast_claims(policy, usable, slots, worker, seen)
            assert claims is not None
            made.append(claims if made else StopsBefore(claims.claim))
            return made[-1]

        assert picked(make_pool(worker, servers, policy, make_fast_claims=make)) is servers[1]

    assert drained_while_stopped(segment, ledger, claim) == ([0, 0], [0, 1])
    # Not even for a moment: a claim that is taken back again may have filled a server in between.
    assert ledger.requests([0]) == 0


def test_a_server_drained_while_a_claim_is_made_gets_no_request(segment: Segment, ledger: Ledger) -> None:
    def claim() -> None:
        worker = Ledger(segment)
        servers = [new_server(slot) for slot in range(2)]
        pool = new_pool(worker, *servers, policy=new_policy("first"))
        worker.acquire = StopsBefore(worker.acquire)  # type: ignore[method-assign]
        assert picked(pool) is servers[1]

    assert drained_while_stopped(segment, ledger, claim) == ([0, 0], [0, 1])
    assert ledger.requests([0]) == 0


def test_when_all_are_full_the_pool_is_full(ledger: Ledger) -> None:
    pool = new_pool(ledger, new_server(0, limit=1), new_server(1, limit=2))
    for _ in range(3):
        pool.lease(REQUEST, ())
    with pytest.raises(PoolFull, match="pool web: every server is at its max_connections") as caught:
        pool.lease(REQUEST, ())
    assert caught.value.status == 503
    assert ledger.totals.tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    assert lock_is_free(ledger)


def test_a_server_that_was_tried_is_no_candidate_again(ledger: Ledger) -> None:
    one, other = new_server(0), new_server(1)
    pool = new_pool(ledger, one, other, policy=new_policy("first"))
    assert picked(pool, one) is other
    with pytest.raises(NoUsableServer, match="pool web: no server is left to try") as caught:
        pool.lease(REQUEST, [one, other])
    assert caught.value.status == 503
    assert lock_is_free(ledger)


def test_one_tried_and_the_other_full_is_a_full_pool(ledger: Ledger) -> None:
    one, other = new_server(0), new_server(1, limit=1)
    pool = new_pool(ledger, one, other)
    pool.lease(REQUEST, [one])
    with pytest.raises(PoolFull):
        pool.lease(REQUEST, [one])


def test_a_backup_is_used_only_when_no_other_is_left(ledger: Ledger) -> None:
    primary, backup = new_server(0, limit=2), new_server(1, backup=True)
    pool = new_pool(ledger, backup, primary, policy=new_policy("first"))
    assert [picked(pool) for _ in range(3)] == [primary, primary, backup]  # the primary is full
    assert picked(new_pool(ledger, backup, new_server(2)), pool.servers[1]) is not backup
    spare = new_pool(ledger, new_server(3), new_server(4, backup=True))
    assert picked(spare, spare.servers[0]) is spare.servers[1]  # the primary was tried


def test_backups_are_balanced_among_themselves(ledger: Ledger) -> None:
    primary = new_server(0)
    backups = [new_server(slot, backup=True) for slot in (1, 2)]
    pool = new_pool(ledger, primary, *backups)
    assert [picked(pool, primary) for _ in range(4)] == [*backups, *backups]


class Misbehaving:
    """A policy that does what it is told."""

    def __init__(self, pick: Callable[[Sequence[Candidate]], object]) -> None:
        self._pick = pick

    def pick(self, candidates: Sequence[Candidate], request: RequestInfo) -> Candidate:
        return self._pick(candidates)  # type: ignore[return-value]


class Broken(Exception):
    pass


def raises(candidates: Sequence[Candidate]) -> object:
    raise Broken


def empties(candidates: Sequence[Candidate]) -> object:
    chosen = candidates[0]
    candidates.clear()  # type: ignore[attr-defined]
    return chosen


def test_a_policy_that_raises_leaves_no_claim_and_no_lock(ledger: Ledger) -> None:
    pool = new_pool(ledger, new_server(0), policy=Misbehaving(raises))  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(Broken):
            pool.lease(REQUEST, ())
    assert ledger.totals.tolist() == [0] * SLOTS
    assert lock_is_free(ledger)


class Impostor:
    """Equal to every server, and none."""

    slot = 0

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


FULL = new_server(1, limit=0)


@pytest.mark.parametrize("pick", [
    lambda candidates: None,
    lambda candidates: new_server(0),  # the same slot, another object
    lambda candidates: FULL,  # of the pool, but no candidate
    lambda candidates: Impostor(),
    lambda candidates: 0,
    empties,
], ids=["nothing", "stranger", "no candidate", "impostor", "index", "emptied list"])
def test_a_policy_that_picks_no_candidate_leaves_no_claim_and_no_lock(
    ledger: Ledger, pick: Callable[[Sequence[Candidate]], object]
) -> None:
    policy: Policy = Misbehaving(pick)  # type: ignore[assignment]
    pool = new_pool(ledger, new_server(0), FULL, policy=policy)
    with pytest.raises(InvariantError, match="pool web: the policy .*Misbehaving.* picked .*: no candidate"):
        pool.lease(REQUEST, ())
    assert ledger.totals.tolist() == [0] * SLOTS
    assert lock_is_free(ledger)


def test_idle_connections_of_all_servers_expire_and_close(ledger: Ledger) -> None:
    servers = [new_server(0), new_server(1)]
    pool = new_pool(ledger, *servers)
    streams = [NotedStream(), NotedStream()]
    for server, stream in zip(servers, streams, strict=True):
        server.idle.put(stream)
    pool.tick()
    assert [stream.closed for stream in streams] == [0, 0]
    pool.close()
    assert [stream.closed for stream in streams] == [1, 1]


@pytest.mark.parametrize("policy", ["least-connections", "weighted-round-robin"])
@pytest.mark.parametrize("how", Break)
def test_a_worker_broken_off_at_any_instruction_of_a_lease_leaves_nothing(
    segment: Segment, ledger: Ledger, how: Break, policy: str
) -> None:
    def prepare() -> Callable[[], object]:
        pool = new_pool(Ledger(segment), *(new_server(slot) for slot in range(3)), policy=new_policy(policy))
        return lambda: pool.lease(REQUEST, ()).succeed(reusable=False)

    found = moments(how, prepare, segment.text)
    assert len(found) > (5 if how is Break.KILL else 50)
    for instruction in found:
        ledger.reclaim_dead()
        assert not broken_off(instruction, how, prepare)
        ledger.acquire()  # free, or repaired
        ledger.release_lock()
        ledger.reclaim_dead()
        assert ledger.totals.tolist() == [0] * SLOTS, f"broken off at instruction {instruction}"


@pytest.mark.parametrize("policy", ["least-connections", "peak-ewma", "least-time", "power-of-two", "consistent-hash"])
def test_load_that_other_balancers_have_there_counts(ledger: Ledger, policy: str) -> None:
    """For every policy that goes by load; the request has no key, so `consistent-hash` goes by load, too."""
    servers = new_server(0), new_server(1)
    pool = make_pool(ledger, servers, new_policy(policy, servers=servers))
    Elsewhere(ledger.segment, ledger, States(ledger.segment)).set({0: 3})
    counts = Counter(picked(pool).slot for _ in range(3))
    assert counts == {1: 3}
