"""From a pool of the configuration to the objects that serve it in one worker."""
from __future__ import annotations

import functools
import random
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prefork_lb.balance.keys import key_finder
from prefork_lb.balance.policy import Policy, PolicyMemory, PolicyOptions, PolicySetup
from prefork_lb.balance.registry import make_policy
from prefork_lb.clock import monotonic
from prefork_lb.config import Config
from prefork_lb.config.pool import EjectionConfig, PoolConfig, TLSConfig
from prefork_lb.config.statuses import parse_statuses
from prefork_lb.errors import ConfigError
from prefork_lb.net.address import parse_address
from prefork_lb.net.tls import ClientTLS, upstream_context
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.line import Line, pool_spots, server_spots
from prefork_lb.shared.states import States
from prefork_lb.shared.table import PoolSlots
from prefork_lb.upstream.answering import answering_of
from prefork_lb.upstream.availability import AvailabilityRules
from prefork_lb.upstream.claiming import fast_claims
from prefork_lb.upstream.ejection import EjectionRules, Ejections
from prefork_lb.upstream.idle import IdleConnections
from prefork_lb.upstream.in_flight_limit import InFlightLimit
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.queue import Queue, QueueRules
from prefork_lb.upstream.retries import RetryBudget, RetryRules
from prefork_lb.upstream.runtime import Runtime
from prefork_lb.upstream.server import UNLIMITED, Server
from prefork_lb.wiring.sessions import make_sticky, secrets_of
from prefork_lb.wiring.trust import trust_check


class PoolNeeds(NamedTuple):
    """What a pool needs from outside."""

    context: ssl.SSLContext | None  # of TLS toward its servers; None when none speaks TLS
    secrets: tuple[bytes, ...]  # that sign and verify cookies of sessions; none: the instance's own


Needs = Mapping[str, PoolNeeds]
"""What the pools need from outside, by the pool's name."""


def obtain(config: Config) -> Needs:
    """Get what the pools need from outside, and try whether their policies can be made. Nothing is shared yet.

    Raises ConfigError when a policy cannot be had, or a TLS file is of no use any more.
    """
    found = {}
    for name, pool in config.pools.items():
        # The real policy is made later, in shared memory: what it writes there must not stay when another pool fails.
        slots = max(64, len(pool.servers))
        memory = PolicyMemory([0] * at.POLICY_CELLS, tuple([0] * slots for _ in range(len(at.POLICY_COLUMNS) + 1)))
        found[name] = PoolNeeds(_tls_context(name, pool, config), secrets_of(name, pool, config))
        _make_policy(name, pool, config, memory, _servers(pool, config, range(len(pool.servers)), found[name].context))
    return found


def _make_policy(name: str, pool: PoolConfig, config: Config, memory: PolicyMemory, servers: Sequence[Server]) -> Policy:
    options = PolicyOptions(pool.load_factor, load=pool.load, compatible=pool.compatible)
    try:
        return make_policy(pool.policy, PolicySetup(random.Random(), memory, servers, options, monotonic))
    except ValueError as exc:
        raise ConfigError([f"{config.source}: pools.{name}.policy: {exc}"]) from exc


def _tls_context(name: str, pool: PoolConfig, config: Config) -> ssl.SSLContext | None:
    settings = pool.tls or TLSConfig()
    if not any(parse_address(server.address).tls for server in pool.servers):
        return None
    try:
        return upstream_context(settings.verify, settings.ca_file, settings.certificate, settings.key)
    except ValueError as exc:  # it was checked with the configuration; the files have changed since
        raise ConfigError([f"{config.source}: pools.{name}.tls: {exc}"]) from exc


def make_pool(name: str, pool: PoolConfig, config: Config, needs: PoolNeeds, slots: PoolSlots,
              ledger: Ledger, states: States, runtime: Runtime) -> Pool:
    """The pool of this name, on its place in shared memory."""
    servers = _servers(pool, config, slots.slots, needs.context)
    policy = _make_policy(name, pool, config, PolicyMemory(slots.cells, slots.columns), servers)
    answering = answering_of(policy, ledger, slots)
    retries, most = pool.retries, pool.breaker.in_flight
    rules = _ejection_rules(pool.ejection)
    waits = pool.sticky is not None and pool.sticky.on_failure == "wait"
    queue = _queues(name, pool, servers, waits, slots, ledger, runtime)
    return Pool(
        name, servers, policy, ledger, states,
        Outcomes(states, ledger, Ejections(name, servers, states, ledger, rules, random.Random()), rules,
                 answering),
        AvailabilityRules(int(pool.slow_start * 1000), pool.panic_threshold),
        RetryRules(retries.attempts, frozenset(retries.on), parse_statuses(retries.statuses), retries.backoff,
                   retries.body_memory, retries.body_limit, retries.hedge),
        RetryBudget(ledger, slots.block, slots.number, slots.slots, retries.budget, retries.floor,
                    pool.breaker.retries),
        lambda usable, seen: None if most or waits else fast_claims(policy, usable, slots, ledger, seen, answering), queue,
        InFlightLimit(ledger, slots.slots, slots.number, most) if most else None,
        functools.partial(slots.block.__setitem__, at.P_PANIC),
        key_finder(pool.key, trust_check(config.proxy.trusted_proxies)) if pool.key else None,
        make_sticky(name, pool, servers, needs.secrets, ledger, trust_check(config.proxy.trusted_proxies)),
        pool.redirect_status if pool.mode == "redirect" else 0, slots.number)


def _queues(name: str, pool: PoolConfig, servers: Sequence[Server], have_own: bool, slots: PoolSlots, ledger: Ledger,
            runtime: Runtime) -> Queue | None:
    """The pool's queue, if it has one. With `have_own` each server gets one too, for the sessions that wait for it."""
    if pool.queue is None:
        return None
    rules, layout = QueueRules(pool.queue.size, pool.queue.timeout), ledger.segment.layout
    line = Line(ledger, pool_spots(layout, slots.number))
    for server in servers if have_own else ():
        own = Line(ledger, server_spots(layout, slots.number, server.slot), line.ringer)
        server.own_queue = Queue(name, own, ledger, rules, runtime.stream, monotonic)
    return Queue(name, line, ledger, rules, runtime.stream, monotonic)


def _servers(pool: PoolConfig, config: Config, slots: Sequence[int], context: ssl.SSLContext | None) -> list[Server]:
    """The servers of a pool, in these slots."""
    keepalive = config.proxy.keepalive
    settings = pool.tls or TLSConfig()
    addresses = [parse_address(server.address) for server in pool.servers]
    return [
        Server(slot, address, server.address, server.weight, server.max_connections or UNLIMITED, server.backup,
               # One with a PROXY header belongs to its client.
               IdleConnections(0 if server.proxy_protocol else keepalive.connections, keepalive.seconds, monotonic,
                               server.address),
               tls=ClientTLS(context, settings.server_name or address.tls_name) if context and address.tls else None,
               public=server.public.rstrip("/").encode(), proxy_protocol=server.proxy_protocol)
        for slot, address, server in zip(slots, addresses, pool.servers, strict=True)
    ]


def _ejection_rules(ejection: EjectionConfig) -> EjectionRules:
    return EjectionRules(
        ejection.failures, ejection.share, int(ejection.window * 1000), ejection.least_requests, int(ejection.seconds * 1000),
        int(ejection.max_seconds * 1000), ejection.max_ejected, parse_statuses(ejection.statuses), ejection.penalty)
