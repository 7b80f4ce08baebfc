"""Claims by the compiled module are those that the policy itself makes, number by number."""
from __future__ import annotations

import contextlib
import heapq
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

import prefork_lb.upstream.answering as answering_module
import prefork_lb.upstream.pool as pool_module
from prefork_lb.balance.answer_times import POOL_LEVEL
from prefork_lb.balance.least_connections import IDLE_PICKS
from prefork_lb.balance.policy import Policy, PolicyMemory, PolicySetup
from prefork_lb.balance.registry import make_policy
from prefork_lb.balance.rotation import MEMORY_ROUNDS, UNIT
from prefork_lb.clock import Clock, monotonic
from prefork_lb.native.loader import native
from prefork_lb.native.switches import PURE
from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import PoolEntry, PoolSlots, ServerEntry, register
from prefork_lb.upstream.answering import answering_of
from prefork_lb.upstream.compiled_picker import fast_claims
from prefork_lb.upstream.ejection import EjectionRules
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import UNLIMITED, Server
from tests.unit.balance.candidates import REQUEST
from tests.unit.shared.processes import Child, Master
from tests.unit.upstream.parts import make_pool, new_server

STEPS = 4000
RULE = (UNIT, MEMORY_ROUNDS, IDLE_PICKS, at.H_CHANGES, 0)

needs_native = pytest.mark.skipif(native() is None, reason="prefork_lb.native.claims was not built: it takes a C compiler")


@dataclass
class Instance:
    """A pool in a segment of its own, with and without the compiled module."""

    segment: Segment
    ledger: Ledger
    pool: Pool
    has_fast_claims: bool

    def memory(self) -> list[int]:
        """All that policy and ledger keep for the servers, and the pool's cells."""
        layout = self.segment.layout
        cells = self.segment.cells.tolist()
        rows = [value for array in range(at.ROW_ARRAYS) for value in cells[layout.row_array(0, array)]]
        columns = [value for number in (at.C_TOTAL, at.C_POLICY, at.C_POLICY + 1, at.C_POLICY + 2, at.C_LEVEL, at.C_HEARD,
                                     at.C_PICKED, at.C_BACK, at.C_UNANSWERED)
                   for value in cells[layout.column(number)]]
        start = layout.pool(0)
        return rows + columns + cells[start:start + at.POLICY_CELLS]


def instance(segment: Segment, weights: Sequence[int], limits: Sequence[int], policy_name: str = "least-connections",
             clock: Clock = monotonic) -> Instance:
    ledger = Ledger(segment)
    entries = [ServerEntry(f"127.0.0.1:{8000 + n}", weight, 0, False) for n, weight in enumerate(weights)]
    slots: PoolSlots = register(segment, ledger, [PoolEntry("web", entries)])["web"]
    servers = [new_server(slot, weight, limit) for slot, weight, limit in zip(slots.slots, weights, limits, strict=True)]
    memory = PolicyMemory(slots.cells, slots.columns)
    policy: Policy = make_policy(policy_name, PolicySetup(random.Random(1), memory, servers, clock=clock))
    answering = answering_of(policy, ledger, slots)
    has_fast_claims = fast_claims(policy, servers, slots, ledger, 0, answering) is not None
    pool = make_pool(ledger, servers, policy,
                     make_fast_claims=lambda usable, seen: fast_claims(policy, usable, slots, ledger, seen, answering),
                     ejection=EjectionRules(failures=0, penalty_s=0))  # which go by the time
    pool.outcomes.answering = answering
    return Instance(segment, ledger, pool, has_fast_claims)


@pytest.fixture
def segments() -> Iterator[list[Segment]]:
    masters = [Master(), Master()]
    made = [attach_or_create(master.pid, Layout(4, 16, 16)) for master in masters]
    yield made
    for master, segment in zip(masters, made, strict=True):
        master.kill()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(DIRECTORY / segment.name)


def both(segments: list[Segment], monkeypatch: pytest.MonkeyPatch, weights: Sequence[int],
         limits: Sequence[int], policy_name: str = "least-connections", clock: Clock = monotonic) -> tuple[Instance, Instance]:
    compiled = instance(segments[0], weights, limits, policy_name, clock)
    monkeypatch.setenv(PURE, "1")
    pure = instance(segments[1], weights, limits, policy_name, clock)
    assert compiled.has_fast_claims and not pure.has_fast_claims
    return compiled, pure


@needs_native
@pytest.mark.parametrize("weights", [
    (1,), (1, 1), (1, 1, 1, 1), (7, 7, 7), (5, 3, 1, 1), (1000, 1, 999), (1, 2, 3, 4, 5, 6, 7, 8),
], ids=str)
@pytest.mark.parametrize("limit", [UNLIMITED, 5], ids=["unlimited", "limit-5"])
def test_the_same_servers_and_the_same_memory(segments: list[Segment], monkeypatch: pytest.MonkeyPatch,
                                              weights: tuple[int, ...], limit: int) -> None:
    pair = both(segments, monkeypatch, weights, [limit] * len(weights))
    rng = random.Random(len(weights) * 31 + weights[0])
    held: list[tuple[Lease, Lease]] = []
    load = 1
    for step in range(STEPS):
        if step % 200 == 0:
            load = rng.choice((0, 1, 3, 10, 4 * len(weights)))  # idle, light and heavy by turns
        if len(held) <= load and len(held) < 5 * len(weights):
            leases = pair[0].pool.lease(REQUEST, ()), pair[1].pool.lease(REQUEST, ())
            assert leases[0].server.slot == leases[1].server.slot, f"step {step}"
            held.append(leases)
        elif held:
            failed = rng.random() < 0.2
            for lease in held.pop(rng.randrange(len(held))):
                if failed:
                    lease.fail("refused")
                else:
                    lease.abandon()
        if step % 50 == 0:
            assert pair[0].memory() == pair[1].memory(), f"step {step}"
    for leases in held:
        for lease in leases:
            lease.abandon()
    assert pair[0].memory() == pair[1].memory()
    assert not any(pair[0].ledger.totals)


@needs_native
def test_a_policy_without_a_compiled_twin_claims_by_itself(segments: list[Segment]) -> None:
    assert not instance(segments[0], (1, 1), (UNLIMITED, UNLIMITED), "round-robin").has_fast_claims


@needs_native
def test_another_process_that_holds_the_lock_is_waited_for(segments: list[Segment]) -> None:
    """The compiled module does not wait: it leaves that to the Python, which does."""
    found = instance(segments[0], (1, 1), (UNLIMITED, UNLIMITED))

    def hold() -> None:
        ledger = Ledger(segments[0])
        with ledger.locked():
            os.write(ready, b"!")
            os.read(go_on, 1)

    wait_ready, ready = os.pipe()
    go_on, let_go = os.pipe()
    child = Child(hold)
    os.read(wait_ready, 1)
    claims = found.ledger.native_claims
    assert claims is not None and not claims.release(0, False)
    os.write(let_go, b"!")
    lease = found.pool.lease(REQUEST, ())
    assert found.ledger.totals[lease.server.slot] == 1
    assert child.wait() == 0
    for descriptor in (wait_ready, ready, go_on, let_go):
        os.close(descriptor)


@needs_native
def test_a_death_inside_the_lock_is_repaired_before_the_claim(segments: list[Segment]) -> None:
    found = instance(segments[0], (1, 1, 1), (UNLIMITED,) * 3)

    def die_inside() -> None:
        Ledger(segments[0]).acquire()
        os._exit(0)

    first = found.pool.lease(REQUEST, ())
    assert Child(die_inside).wait() == 0
    found.ledger.totals[2] = 77  # what a death in the middle may leave
    second = found.pool.lease(REQUEST, ())
    assert second.server is not first.server
    assert sorted(found.ledger.totals[:3]) == [0, 1, 1]
    assert segments[0].cells[at.H_REPAIRS] == 1


@needs_native
@pytest.mark.parametrize("wrong", [
    lambda make, ledger, cells: make(ledger.native_claims, (), cells, cells, cells, *RULE),
    lambda make, ledger, cells: make(ledger.native_claims, ((99, 1, 1),), cells, cells, cells, *RULE),
    lambda make, ledger, cells: make(ledger.native_claims, ((0, 0, 1),), cells, cells, cells, *RULE),
    lambda make, ledger, cells: make(ledger.native_claims, ((0, 1, 1),), cells[:1], cells, cells, *RULE),
    lambda make, ledger, cells: make(object(), ((0, 1, 1),), cells, cells, cells, *RULE),
    lambda make, ledger, cells: ledger.native_claims.release(1 << 40, False),
    lambda make, ledger, cells: ledger.native_claims.release(-1, False),
], ids=["no server", "no such slot", "no weight", "short memory", "no claims", "slot beyond", "slot below"])
def test_what_cannot_be_is_refused(segments: list[Segment], wrong: object) -> None:
    ledger, module = Ledger(segments[0]), native()
    assert callable(wrong) and module is not None
    with pytest.raises((ValueError, TypeError, IndexError)):
        wrong(module.LeastConnections, ledger, segments[0].cells)


def test_without_the_compiled_module_the_policy_claims(segments: list[Segment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PURE, "1")
    found = instance(segments[0], (1, 1), (UNLIMITED, UNLIMITED))
    assert not found.has_fast_claims and found.ledger.native_claims is None
    lease = found.pool.lease(REQUEST, ())
    assert isinstance(lease.server, Server)
    lease.succeed(reusable=False)
    assert not any(found.ledger.totals)


@needs_native
@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1, 1), (5, 3, 1, 1)], ids=str)
def test_the_same_servers_and_the_same_memory_by_the_times_of_answers(segments: list[Segment], monkeypatch: pytest.MonkeyPatch,
                                                                     weights: tuple[int, ...]) -> None:
    """Answers, failures, clients that leave and bodies that go on; one server is slow now and then, one fails now and then."""
    now = 1_000_000
    for module in (answering_module, pool_module):
        monkeypatch.setattr(module, "now_us", lambda: now)
    pair = both(segments, monkeypatch, weights, [UNLIMITED] * len(weights), "peak-ewma", lambda: now / 1e6)
    rng = random.Random(sum(weights))
    held: list[tuple[int, int, tuple[Lease, Lease]]] = []
    for step in range(STEPS):
        now += int(rng.expovariate(1 / 5000))
        while held and held[0][0] <= now:
            due, _, leases = heapq.heappop(held)
            kind = rng.random()
            for lease in leases:
                if leases[0].server.slot == 1 and step % 500 < 100:
                    lease.fail("no answer")
                elif kind < 0.1:
                    lease.abandon()
                elif kind < 0.2:
                    lease.note_status(429, 0.0)
                    lease.succeed(reusable=False)
                else:
                    if kind < 0.5:
                        lease.keep()
                    lease.succeed(reusable=False)
        leases = pair[0].pool.lease(REQUEST, ()), pair[1].pool.lease(REQUEST, ())
        assert leases[0].server.slot == leases[1].server.slot, f"step {step}"
        takes = rng.expovariate(1 / 30_000) * (20 if leases[0].server.slot == 0 and step % 700 < 300 else 1)
        heapq.heappush(held, (now + int(takes), step, leases))
        assert pair[0].memory() == pair[1].memory(), f"step {step}"
    assert pair[0].memory()[-at.POLICY_CELLS + POOL_LEVEL] > 0
