"""The server of a session: when a request gets it, and what becomes of the session when it cannot."""
from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.balance.registry import make_policy
from prefork_lb.errors import PoolFull, SessionRefused
from prefork_lb.native.loader import FastClaims, native
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.transitions import Check, Ejection, StateEvent
from prefork_lb.upstream.availability import AvailabilityRules
from prefork_lb.upstream.compiled_picker import fast_claims
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.route import RouteSticky
from prefork_lb.upstream.sticky.session import OnFailure, Session, SessionRules
from tests.unit.balance.candidates import REQUEST, AnyRequest, new_policy
from tests.unit.upstream.parts import make_pool, new_server

STRICT = SessionRules(OnFailure.STRICT)
REBALANCE = SessionRules()


def sessions(ledger: Ledger, *servers: Server, rules: SessionRules = REBALANCE, policy: str = "first") -> Pool:
    for server in servers:
        server.route = f"r{server.slot}"
    sticky = RouteSticky(servers, rules, "id", "sid")
    return make_pool(ledger, servers, new_policy(policy), sticky=sticky)


def served(pool: Pool, server: Server, *tried: Server) -> Server:
    return pool.lease(REQUEST, tried, session=Session(server)).server


@pytest.fixture
def servers() -> Sequence[Server]:
    return [new_server(slot) for slot in range(3)]


def test_a_session_gets_its_server_whatever_the_policy_says(ledger: Ledger, servers: Sequence[Server]) -> None:
    pool = sessions(ledger, *servers)
    assert [served(pool, servers[2]) for _ in range(3)] == [servers[2]] * 3
    assert ledger.totals.tolist()[:3] == [0, 0, 3]
    assert pool.lease(REQUEST, (), session=Session(None)).server is servers[0]


@pytest.mark.parametrize("policy", ["round-robin", "least-connections", "weighted-round-robin"])
def test_others_give_way_to_what_sessions_take(ledger: Ledger, servers: Sequence[Server], policy: str) -> None:
    """The turns, too: nothing is in flight here."""
    pool = sessions(ledger, *servers, policy=policy)
    pool.lease(REQUEST, ()).abandon()
    pool.lease(REQUEST, (), session=Session(servers[1])).abandon()
    lease = pool.lease(REQUEST, ())
    assert lease.server is servers[2]


def test_a_server_that_failed_in_this_exchange_is_not_taken_again(ledger: Ledger, servers: Sequence[Server]) -> None:
    assert served(sessions(ledger, *servers), servers[0], servers[0]) is servers[1]
    with pytest.raises(SessionRefused, match="has just failed"):
        served(sessions(ledger, *servers, rules=STRICT), servers[0], servers[0])


def full(segment: Segment, ledger: Ledger, server: Server) -> None:
    server.configured_limit = server.max_connections = 1
    ledger.claim(server.slot)


def down(segment: Segment, ledger: Ledger, server: Server) -> None:
    States(segment).set_check(server.slot, Check.UP, "")
    States(segment).set_check(server.slot, Check.DOWN, "")


def ejected(segment: Segment, ledger: Ledger, server: Server) -> None:
    States(segment).eject(server.slot, StateEvent.FAILED, 1 << 60)


def in_maintenance(segment: Segment, ledger: Ledger, server: Server) -> None:
    States(segment).set_admin(server.slot, Admin.MAINTENANCE)


@pytest.mark.parametrize(("trouble", "told"), [
    (full, "is full"), (down, "is down"), (ejected, "is ejected"), (in_maintenance, "is in maintenance")])
def test_a_session_moves_or_is_refused_when_its_server_cannot(
        segment: Segment, ledger: Ledger, servers: Sequence[Server], trouble: object, told: str) -> None:
    moving, strict = sessions(ledger, *servers), sessions(ledger, *servers, rules=STRICT)
    with ledger.locked():
        trouble(segment, ledger, servers[0])  # type: ignore[operator]
    assert served(moving, servers[0]) is servers[1]
    with pytest.raises(SessionRefused, match=f"127.0.0.1:8000 {told}"):
        served(strict, servers[0])


def test_a_drained_server_keeps_its_sessions_and_gets_no_new_ones(segment: Segment, ledger: Ledger,
                                                                  servers: Sequence[Server]) -> None:
    pool = sessions(ledger, *servers)
    with ledger.locked():
        States(segment).set_admin(0, Admin.DRAIN)
    assert served(pool, servers[0]) is servers[0]
    assert pool.lease(REQUEST, ()).server is servers[1]
    assert States(segment).session_requests_lately(0) == 1


def test_a_drained_server_gives_up_its_sessions_after_the_timeout(segment: Segment, ledger: Ledger,
                                                                  servers: Sequence[Server]) -> None:
    pool = sessions(ledger, *servers, rules=SessionRules(drain_ms=10_000))
    states = States(segment)
    with ledger.locked():
        states.set_admin(0, Admin.DRAIN)
    assert served(pool, servers[0]) is servers[0]
    states.drained[0] -= 10_000
    assert served(pool, servers[0]) is servers[1]


def test_a_drained_server_that_is_down_keeps_nothing(segment: Segment, ledger: Ledger, servers: Sequence[Server]) -> None:
    pool = sessions(ledger, *servers)
    with ledger.locked():
        States(segment).set_admin(0, Admin.DRAIN)
        down(segment, ledger, servers[0])
    assert served(pool, servers[0]) is servers[1]


def test_the_own_session_is_the_trial_of_an_ejected_server(segment: Segment, ledger: Ledger, servers: Sequence[Server]) -> None:
    pool, states = sessions(ledger, *servers), States(segment)
    with ledger.locked():
        states.eject(0, StateEvent.FAILED, 0)
        states.let_time_pass()
    other = pool.lease(REQUEST, (), session=Session(servers[1]))
    assert other.server is servers[1] and states.ejection[0] == Ejection.TRIAL_DUE
    lease = pool.lease(REQUEST, (), session=Session(servers[0]))
    assert lease.server is servers[0] and states.ejection[0] == Ejection.ON_TRIAL
    lease.succeed(reusable=False)
    assert states.ejection[0] == Ejection.NONE


@pytest.mark.parametrize("rules", [REBALANCE, STRICT], ids=["rebalance", "strict"])
def test_an_ejected_server_that_is_drained_is_tried_by_its_own_sessions(
        segment: Segment, ledger: Ledger, servers: Sequence[Server], rules: SessionRules) -> None:
    """No other request would try it, so it would be lost to its sessions."""
    pool, states = sessions(ledger, *servers, rules=rules), States(segment)
    with ledger.locked():
        states.set_admin(0, Admin.DRAIN)
        states.eject(0, StateEvent.FAILED, 0)
        states.let_time_pass()
    assert pool.lease(REQUEST, ()).server is servers[1] and states.ejection[0] == Ejection.TRIAL_DUE
    lease = pool.lease(REQUEST, (), session=Session(servers[0]))
    assert lease.server is servers[0] and states.ejection[0] == Ejection.ON_TRIAL
    assert states.session_requests_lately(0) == 1
    lease.succeed(reusable=False)
    assert states.ejection[0] == Ejection.NONE
    assert served(pool, servers[0]) is servers[0]


def test_sessions_leave_a_backup_when_another_server_can_be_used(segment: Segment, ledger: Ledger) -> None:
    first, backup = new_server(0), new_server(1, backup=True)
    pool = sessions(ledger, first, backup)
    states = States(segment)
    with ledger.locked():
        states.set_admin(0, Admin.MAINTENANCE)
    assert served(pool, backup) is backup
    with ledger.locked():
        states.set_admin(0, Admin.READY)
    assert served(pool, backup) is first


def test_a_session_finds_every_server_full(ledger: Ledger) -> None:
    pool = sessions(ledger, *[new_server(slot, limit=1) for slot in range(2)])
    for server in pool.servers:
        served(pool, server)
    with pytest.raises(PoolFull):
        served(pool, pool.servers[0])


def test_slow_start_keeps_no_session_from_its_server(segment: Segment, ledger: Ledger) -> None:
    """A drained server that is ready again begins slow start, while its sessions go on."""
    servers = [new_server(slot, limit=20) for slot in range(2)]
    pool = make_pool(ledger, servers, new_policy("least-connections"), availability=AvailabilityRules(slow_start_ms=60_000),
                     sticky=RouteSticky({}, REBALANCE, "id", ""))
    states = States(segment)
    with ledger.locked():
        states.set_admin(0, Admin.DRAIN)
    held = [pool.lease(REQUEST, (), session=Session(servers[0])) for _ in range(19)]
    with ledger.locked():
        states.set_admin(0, Admin.READY)
    assert served(pool, servers[0]) is servers[0] and servers[0].max_connections == 2
    assert pool.lease(REQUEST, (), session=Session(None)).server is servers[1]
    assert len(held) == 19 and served(pool, servers[0]) is servers[1], "max_connections holds for sessions, too"


@pytest.mark.parametrize(("target", "cookie", "number"), [
    (b"/", b"id=abc.r1", 1), (b"/", b"id=a.b.c.r2", 2), (b"/", b'x=y; id="abc.r1"', 1), (b"/", b"id=r1", None),
    (b"/", b"id=abc.rx", None), (b"/", b"id=", None), (b"/", b"", None), (b"/", b"other=abc.r1", None),
    (b"/a;sid=abc.r1", b"", 1), (b"/a;sid=abc.r1?q=1", b"", 1),
    (b"/a;sid=abc.r1;b=c", b"", 1), (b"/a;sid=abc.r1/b", b"", 1), (b"/a?x=;sid=abc.r1", b"", None), (b"/a;sid=abc", b"", None),
    (b"/a;sid=abc.r1", b"id=abc.r2", 2)])
def test_the_route_stands_at_the_end_of_the_value(ledger: Ledger, servers: Sequence[Server], target: bytes, cookie: bytes,
                                                  number: int | None) -> None:
    sticky = sessions(ledger, *servers).sticky
    assert sticky is not None
    found = sticky.find(sticky.read(AnyRequest(target=target, index={b"cookie": [cookie]} if cookie else {}), False)).server
    assert found is (None if number is None else servers[number])




@pytest.mark.skipif(native() is None, reason="prefork_lb.native.claims was not built: it takes a C compiler")
@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 2, 1)])
def test_the_compiled_claims_of_sessions_are_those_of_the_python(segment: Segment, weights: tuple[int, ...]) -> None:
    """Number by number: picks after them, and what the policy remembers."""
    found = []
    for pool_name, is_compiled in (("one", True), ("two", False)):
        ledger = Ledger(segment)
        entries = [ServerEntry(f"127.0.0.1:{8000 + number}", weight, 2, False) for number, weight in enumerate(weights)]
        slots = register(segment, ledger, [PoolEntry(pool_name, entries)])[pool_name]
        servers = [new_server(slot, weight, 2) for slot, weight in zip(slots.slots, weights, strict=True)]
        policy = make_policy("least-connections", PolicySetup(random.Random(1), PolicyMemory(slots.cells, slots.columns)))

        def make(usable: Sequence[Server], seen: int, parts: tuple[Any, ...] = (policy, slots, ledger)) -> FastClaims | None:
            return fast_claims(parts[0], usable, parts[1], parts[2], seen)

        pool = make_pool(ledger, servers, policy, sticky=RouteSticky([], REBALANCE, "id", ""),
                         make_fast_claims=make if is_compiled else lambda usable, seen: None)
        rng, leases, picks = random.Random(7), [], []
        for _ in range(300):
            if leases and rng.random() < 0.5:
                leases.pop(rng.randrange(len(leases))).succeed(reusable=False)
            elif len(leases) < 6:
                leases.append(pool.lease(REQUEST, (), session=Session(rng.choice([*servers, None]))))
                picks.append(servers.index(leases[-1].server))
        found.append((picks, list(slots.cells), [[column[slot] for slot in slots.slots] for column in slots.columns[:2]]))
    assert found[0] == found[1]
