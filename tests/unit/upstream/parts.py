"""Servers, pools and streams for the tests of the data plane: a real ledger, streams that note what is done to them."""
from __future__ import annotations

import random
from collections.abc import Sequence

from prefork_lb.balance.policy import Policy
from prefork_lb.clock import ManualClock
from prefork_lb.net.address import Address, parse_address
from prefork_lb.net.stream import Watched
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Member
from prefork_lb.shared.states import States
from prefork_lb.upstream.availability import AvailabilityRules
from prefork_lb.upstream.ejection import EjectionRules, Ejections
from prefork_lb.upstream.idle_connections import IdleConnections
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.pool import MakeFastClaims, Pool
from prefork_lb.upstream.queue import Queue
from prefork_lb.upstream.retries import RetryBudget, RetryRules
from prefork_lb.upstream.roster import MakeServer, Roster
from prefork_lb.upstream.server import UNLIMITED, Server
from prefork_lb.upstream.sticky.session import Sticky
from tests.unit.balance.candidates import new_policy


class NotedStream:
    """A stream without a network."""

    def __init__(self, quiet: bool = True, close_fails: bool = False) -> None:
        self.quiet = quiet
        self.unasked = b""  # what the server said without a request
        self.closed = 0
        self._close_fails = close_fails

    def receive(self, limit: int, timeout_s: float) -> bytes:
        assert not self.quiet and not self.closed, "nobody receives here"
        return self.unasked[:limit]

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        raise AssertionError("nobody receives here")

    def send(self, data: bytes, timeout_s: float) -> None:
        raise AssertionError("nobody sends here")

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
        raise AssertionError("nobody sends here")

    def is_quiet(self) -> bool:
        assert not self.closed, "asked after it was closed"
        return self.quiet

    def close(self) -> None:
        self.closed += 1
        if self._close_fails:
            raise OSError("close failed")


def new_server(slot: int, weight: int = 1, limit: int = UNLIMITED, backup: bool = False, most_idle: int = 4) -> Server:
    idle = IdleConnections(most_idle, 60.0, ManualClock())
    return Server(slot, Address("127.0.0.1", 8000 + slot), f"127.0.0.1:{8000 + slot}", weight, limit, backup, idle)


def new_member(member: Member) -> Server:
    """A server that was added at run time."""
    rules = member.rules
    idle = IdleConnections(4, 60.0, ManualClock())
    return Server(member.slot, parse_address(member.address), member.address, rules.weight, rules.max_connections or UNLIMITED,
                  rules.backup, idle)


def new_pool(ledger: Ledger, *servers: Server, policy: Policy | None = None) -> Pool:
    return make_pool(ledger, servers, policy or new_policy("least-connections"))


def new_outcomes(pool: str, servers: Sequence[Server], states: States, ledger: Ledger, rules: EjectionRules) -> Outcomes:
    return Outcomes(states, ledger, Ejections(pool, servers, states, ledger, rules, random.Random(1)), rules)


def make_pool(ledger: Ledger, servers: Sequence[Server], policy: Policy, name: str = "web",
              make_fast_claims: MakeFastClaims = lambda servers, seen: None, ejection: EjectionRules | None = None,
              availability: AvailabilityRules | None = None, retries: RetryRules | None = None, budget: int = 20, floor: int = 10,
              most_retries: int = 0, queue: Queue | None = None,
              sticky: Sticky | None = None, make_server: MakeServer = new_member, may_be_empty: bool = False) -> Pool:
    """A pool, number 0 of the ledger's segment, with the rules' defaults where none are given."""
    segment = ledger.segment
    states = States(segment)
    start = segment.layout.pool(0)
    return Pool(
        name, Roster(name, ledger, servers, make_server, may_be_empty), policy, ledger, states,
        new_outcomes(name, servers, states, ledger, ejection or EjectionRules()),
        availability or AvailabilityRules(), retries or RetryRules(),
        RetryBudget(ledger, segment.cells[start:start + at.POOL_HEAD_CELLS], 0, [server.slot for server in servers], budget,
                    floor, most_retries),
        make_fast_claims, queue, make_sticky=lambda servers: sticky, awaits_servers=may_be_empty)
