"""A store in memory that behaves as Redis does, on virtual time, and balancers that share through it."""
from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from prefork_lb.clock import ManualClock
from prefork_lb.cluster.key_limits import SharedKeyLimits
from prefork_lb.cluster.rates import SharedRates
from prefork_lb.cluster.sessions import SharedSessions
from prefork_lb.cluster.sharing import Sharing
from prefork_lb.cluster.store import Received, Sent, StoreError
from prefork_lb.shared import layout as at
from prefork_lb.shared.layout import KEYS_IN_SET, RATE_USES
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from prefork_lb.shared.text import write_text
from prefork_lb.shared.transitions import Check
from tests.unit.shared.processes import Master


class FakeStore:
    """`ahead_s` is its clock against that of the hosts."""

    def __init__(self, clock: ManualClock, ahead_s: float = 1e9) -> None:
        self.clock, self.ahead_s = clock, ahead_s
        self.is_away = False
        self.meanwhile: Callable[[], None] | None = None  # what happens once while an exchange is under way
        self.empty()

    def empty(self) -> None:
        """It has lost all that it had."""
        self.reports: dict[str, bytes] = {}
        self.tables: dict[bytes, bytes] = {}
        self.results: dict[str, bytes] = {}
        self.parts: dict[tuple[str, str], dict[str, int]] = {}
        self.sessions: list[tuple[int, bytes]] = []

    def exchange(self, sent: Sent) -> Received:
        if self.is_away:
            raise StoreError("away")
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        self.reports[sent.balancer] = sent.report
        for name in sent.gone:
            self.reports.pop(name, None)
        self.tables |= sent.tables
        if sent.results is not None:
            self.results[sent.balancer] = sent.results
        received = Received(int((self.clock() + self.ahead_s) * 1000), list(self.reports.values()))
        received.tables = {key: self.tables[key] for key in sent.wanted_tables if key in self.tables}
        received.results = self.results.get(sent.results_of)
        for key, (limit, wanted) in sent.parts.items():
            held = self.parts.setdefault(key, {})
            others = sum(part for name, part in held.items() if name != sent.balancer and name in self.reports)
            held[sent.balancer] = received.parts[key] = max(0, min(wanted, limit - others))
        if sent.sessions is not None:
            self.sessions.append((received.now_ms, sent.sessions))
        if sent.sessions_after:
            start = int(sent.sessions_after.partition(b"-")[0])
            received.sessions, received.sessions_after = self.sessions[start:], b"%d-0" % len(self.sessions)
        return received

    def leave(self, balancer: str) -> None:
        self.reports.pop(balancer, None)


class OneBalancer:
    """A balancer with a segment of its own."""

    def __init__(self, name: str, master: Master, store: FakeStore, servers: Sequence[str], limit: int) -> None:
        self.segment: Segment = attach_or_create(master.pid, Layout(
            2, 8, 8, sessions=64, rates=512, rate_uses=RATE_USES, keys=16 * KEYS_IN_SET))
        self.ledger, self.states = Ledger(self.segment), States(self.segment)
        entry = PoolEntry("web", [ServerEntry(address, 1, limit, False) for address in servers], first_check=Check.NONE)
        self.slots = list(register(self.segment, self.ledger, [entry])["web"].slots)
        self.steering = Steering(self.segment, self.ledger, self.states)
        mine = Ledger(self.segment, takes_row=False)
        self.sharing = Sharing(name, self.segment, mine, self.states, store, store.clock, random.Random(name),
                               SharedSessions(self.segment, mine), SharedRates(self.segment, mine, store.clock),
                               SharedKeyLimits(self.segment, mine))

    def claim(self, *counts: int) -> None:
        """So many more in flight on each server; negative numbers release."""
        for slot, count in zip(self.slots, counts, strict=True):
            for _ in range(count):
                with self.ledger.locked():
                    self.ledger.claim(slot)
            for _ in range(-count):
                self.ledger.release(slot)

    def replace(self, index: int, address: str) -> None:
        """A server has left, and another one has got its slot."""
        with self.ledger.locked():
            write_text(self.segment.text, self.segment.layout.server_key_byte(self.slots[index]), f"web\n{address}")
            self.segment.cells[at.H_MEMBERS] += 1

    @property
    def loads(self) -> list[int]:
        """What a pick goes by."""
        return [self.ledger.totals[slot] + self.ledger.penalties[slot] for slot in self.slots]


def exchange(clock: ManualClock, *balancers: OneBalancer, rounds: int = 1) -> None:
    """So many exchanges of each, 50 ms apart. Without the store they go on by themselves."""
    for _ in range(rounds):
        clock.advance(0.05)
        for balancer in balancers:
            try:
                balancer.sharing.exchange()
            except StoreError:
                continue
