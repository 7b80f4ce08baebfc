"""What a claim and its release cost, by policy and number of servers.

One process, real shared memory, no contention: the lock, the filter of candidates, the policy's pick, the count, and the
release. It is the part of every request that all workers share, so it bounds what they can do together.

    python benchmarks/policies.py
    python benchmarks/policies.py --servers 4 --servers 500 --weights
"""
from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rich.console import Console
from rich.table import Table

from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.balance.registry import KEYED_POLICIES, POLICY_NAMES, make_policy
from prefork_lb.clock import monotonic
from prefork_lb.net.address import Address
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.states import States
from prefork_lb.shared.table import PoolEntry, PoolSlots, ServerEntry, register
from prefork_lb.upstream.availability import AvailabilityRules
from prefork_lb.upstream.compiled_picker import fast_claims
from prefork_lb.upstream.ejection import EjectionRules, Ejections
from prefork_lb.upstream.idle_connections import IdleConnections
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.retries import RetryBudget, RetryRules
from prefork_lb.upstream.roster import Roster
from prefork_lb.upstream.server import UNLIMITED, Server

ROUNDS = 5


KEYS = [b"192.0.2.%d" % number for number in range(1000)]


class AnyRequest:
    method = b"GET"
    target = b"/"
    client = "192.0.2.1"
    index: Mapping[bytes, Sequence[bytes]] = MappingProxyType({})
    key = b""


def new_pool(ledger: Ledger, entry: PoolEntry, slots: PoolSlots, policy: str) -> Pool:
    servers = [
        Server(slot, Address("127.0.0.1", 8000), server.address, server.weight, UNLIMITED, False,
               IdleConnections(1, 60.0, monotonic))
        for slot, server in zip(slots.slots, entry.servers, strict=True)
    ]
    made = make_policy(policy, PolicySetup(random.Random(1), PolicyMemory(slots.cells, slots.columns), servers))
    states, rules = States(ledger.segment), EjectionRules(failures=0, penalty_s=0)
    keys = itertools.cycle(KEYS)
    return Pool(
        entry.name, Roster(entry.name, ledger, servers, lambda member: None), made, ledger, states,
        Outcomes(states, ledger, Ejections(entry.name, servers, states, ledger, rules, random.Random(1)), rules),
        AvailabilityRules(), RetryRules(1), RetryBudget(ledger, slots.block, slots.number, slots.slots, 20, 10, 0),
        lambda usable, seen: fast_claims(made, usable, slots, ledger, seen),
        key_of=(lambda request: next(keys)) if policy in KEYED_POLICIES else None)


def busy(pool: Pool, count: int) -> None:
    """Leave `count` requests in flight, so that the policies have loads to look at."""
    request = AnyRequest()
    for _ in range(count):
        pool.lease(request, ())


def lease_us(pool: Pool, seconds: float) -> float:
    """Microseconds for one claim and its release: the median of some rounds."""
    request = AnyRequest()
    lease = pool.lease
    found = []
    for _ in range(ROUNDS):
        done, until = 0, time.perf_counter() + seconds / ROUNDS
        begin = time.perf_counter()
        while time.perf_counter() < until:
            for _ in range(200):
                lease(request, ()).abandon()
            done += 200
        found.append((time.perf_counter() - begin) / done * 1e6)
    return statistics.median(found)


def bare_us(ledger: Ledger, slot: int, seconds: float) -> float:
    """The same without pool and policy: lock, count, unlock, lock, count, unlock."""
    done, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + seconds:
        for _ in range(200):
            ledger.acquire()
            ledger.claim(slot)
            ledger.release_lock()
            ledger.release(slot)
        done += 200
    return (time.perf_counter() - begin) / done * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, action="append", help="number of servers; may be repeated (default: 4, 100)")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long each figure is measured (default: 0.5)")
    parser.add_argument("--weights", action="store_true", help="weights 1, 2, 3, 1, ... instead of 1")
    options = parser.parse_args()
    sizes = options.servers or [4, 100]
    table = Table(title="claim and release, us", title_justify="left")
    table.add_column("policy")
    for size in sizes:
        table.add_column(f"{size} servers", justify="right")
    segment = attach_or_create(os.getpid(), Layout(
        rows=4, servers=2 * sum(sizes) * len(POLICY_NAMES), pools=2 * len(sizes) * len(POLICY_NAMES)))
    with contextlib.ExitStack() as at_end:
        at_end.callback(remove_segment, os.getpid())
        ledger = Ledger(segment)
        for policy in POLICY_NAMES:
            figures = []
            for size in sizes:
                entry = PoolEntry(f"{policy}-{size}", [
                    ServerEntry(f"127.0.0.1:{number + 1}", 1 + number % 3 if options.weights else 1, 0, False)
                    for number in range(size)])
                found = register(segment, ledger, [entry])[entry.name]
                pool = new_pool(ledger, entry, found, policy)
                busy(pool, 3 * size)
                figures.append(f"{lease_us(pool, options.seconds):.2f}")
            table.add_row(policy, *figures)
        table.add_row("(ledger alone)", *[f"{bare_us(ledger, 0, options.seconds):.2f}"] * len(sizes))
    Console().print(table)


if __name__ == "__main__":
    main()
