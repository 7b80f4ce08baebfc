"""From a pool of the configuration to the objects that serve it in one worker."""
from __future__ import annotations

import functools
import random
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prefork_lb.balance.keys import KeyOf, policy_key_finder
from prefork_lb.balance.policy import Policy, PolicyMemory, PolicyOptions, PolicySetup
from prefork_lb.balance.registry import make_policy
from prefork_lb.clock import monotonic
from prefork_lb.config.filter_rules import filters_of
from prefork_lb.config.model import Config
from prefork_lb.config.pool import EjectionConfig, PoolConfig
from prefork_lb.config.statuses import parse_statuses
from prefork_lb.errors import ConfigError
from prefork_lb.net.address import parse_address
from prefork_lb.net.networks import lies_in
from prefork_lb.proxy.filtering import chosen_key
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States
from prefork_lb.shared.table import PoolSlots
from prefork_lb.shared.waiting_line import WaitingLine, pool_spots, server_spots
from prefork_lb.upstream.answering import answering_of
from prefork_lb.upstream.availability import AvailabilityRules
from prefork_lb.upstream.compiled_picker import fast_claims
from prefork_lb.upstream.ejection import EjectionRules, Ejections
from prefork_lb.upstream.in_flight_limit import InFlightLimit
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.queue import Queue, QueueRules
from prefork_lb.upstream.retries import RetryBudget, RetryRules
from prefork_lb.upstream.roster import Roster
from prefork_lb.upstream.runtime import Runtime
from prefork_lb.upstream.server import Server
from prefork_lb.wiring.filters import import_filters
from prefork_lb.wiring.servers import MakeQueue, ServerMaker, tls_context
from prefork_lb.wiring.sessions import secrets_of, sticky_maker


class PoolNeeds(NamedTuple):
    """What a pool needs from outside."""

    context: ssl.SSLContext | None  # of TLS toward its servers; None when none that the configuration names speaks TLS
    secrets: tuple[bytes, ...]  # that sign and verify cookies of sessions; none: the instance's own


Needs = Mapping[str, PoolNeeds]
"""What the pools need from outside, by the pool's name."""


def obtain_needs(config: Config) -> Needs:
    """Get what the pools need from outside, and try whether their policies can be made. Nothing is shared yet.

    Raises ConfigError when a policy cannot be made, a filter not be imported, or a file not be used any more.
    """
    import_filters(config)
    found = {}
    for name, pool in config.pools.items():
        # Servers that are found later may speak TLS.
        has_tls = pool.tls is not None or any(parse_address(server.address).tls for server in pool.servers)
        context = tls_context(name, pool, config) if has_tls else None
        found[name] = PoolNeeds(context, secrets_of(name, pool, config))
        _try_policy(name, pool, config, context)
    return found


def _try_policy(name: str, pool: PoolConfig, config: Config, context: ssl.SSLContext | None) -> None:
    """Make the pool's policy in memory of this process: what it writes must not stay in the instance when another pool fails.

    Raises ConfigError.
    """
    make = ServerMaker(name, pool, config, context, lambda slot: None)
    slots = max(64, len(pool.servers))
    memory = PolicyMemory([0] * at.POLICY_CELLS, tuple([0] * slots for _ in range(len(at.POLICY_COLUMNS) + 1)))
    _make_policy(name, pool, config, memory, list(map(make.from_configuration, pool.servers, range(slots))))


def _make_policy(name: str, pool: PoolConfig, config: Config, memory: PolicyMemory, servers: Sequence[Server]) -> Policy:
    options = PolicyOptions(pool.load_factor, load=pool.load, compatible=pool.compatible)
    try:
        return make_policy(pool.policy, PolicySetup(random.Random(), memory, servers, options, monotonic))
    except ValueError as exc:
        raise ConfigError([f"{config.source}: pools.{name}.policy: {exc}"]) from exc


def make_pool(name: str, pool: PoolConfig, config: Config, needs: PoolNeeds, slots: PoolSlots,
              ledger: Ledger, states: States, runtime: Runtime) -> Pool:
    """The pool of this name, at its place in shared memory."""
    waits = pool.sticky is not None and pool.sticky.on_failure == "wait"
    queue, own_queue = _queues(name, pool, waits, slots, ledger, runtime)
    make = ServerMaker(name, pool, config, needs.context, own_queue)
    servers = list(map(make.from_configuration, pool.servers, slots.slots))
    roster = Roster(name, ledger, servers, make.from_table, pool.may_be_empty)
    policy = _make_policy(name, pool, config, PolicyMemory(slots.cells, slots.columns), roster.servers)
    answering = answering_of(policy, ledger, slots)
    retries, most = pool.retries, pool.breaker.in_flight
    rules = _ejection_rules(pool.ejection)
    return Pool(
        name, roster, policy, ledger, states,
        Outcomes(states, ledger, Ejections(name, roster.servers, states, ledger, rules, random.Random()), rules,
                 answering),
        AvailabilityRules(int(pool.slow_start * 1000), pool.panic_threshold),
        RetryRules(retries.attempts, frozenset(retries.on), parse_statuses(retries.statuses), retries.backoff,
                   retries.body_memory, retries.body_limit, retries.hedge),
        RetryBudget(ledger, slots.block, slots.number, slots.slots, retries.budget, retries.floor,
                    pool.breaker.retries),
        lambda usable, seen: None if most or waits else fast_claims(policy, usable, slots, ledger, seen, answering), queue,
        InFlightLimit(ledger, slots.slots, slots.number, most) if most else None,
        functools.partial(slots.block.__setitem__, at.P_PANIC),
        _key_of(pool.key, config) if pool.key else None,
        sticky_maker(name, pool, needs.secrets, ledger, lies_in(config.proxy.trusted_proxies)),
        pool.redirect_status if pool.mode == "redirect" else 0, slots.number, pool.may_be_empty)


def _key_of(key: str, config: Config) -> KeyOf:
    found = policy_key_finder(key, lies_in(config.proxy.trusted_proxies))
    return chosen_key(found) if filters_of(config) else found


def _queues(name: str, pool: PoolConfig, servers_have_own: bool, slots: PoolSlots, ledger: Ledger,
            runtime: Runtime) -> tuple[Queue | None, MakeQueue]:
    """The pool's queue, None without one, and what makes a server's own queue: with `servers_have_own`, for the sessions
    that wait for that server."""
    if pool.queue is None:
        return None, lambda slot: None
    rules, layout = QueueRules(pool.queue.size, pool.queue.timeout), ledger.segment.layout
    line = WaitingLine(ledger, pool_spots(layout, slots.number))

    def own(slot: int) -> Queue:
        own_line = WaitingLine(ledger, server_spots(layout, slots.number, slot), line.ringer)
        return Queue(name, own_line, ledger, rules, runtime.stream, monotonic)

    return Queue(name, line, ledger, rules, runtime.stream, monotonic), own if servers_have_own else lambda slot: None


def _ejection_rules(ejection: EjectionConfig) -> EjectionRules:
    return EjectionRules(
        ejection.failures, ejection.share, int(ejection.window * 1000), ejection.least_requests, int(ejection.seconds * 1000),
        int(ejection.max_seconds * 1000), ejection.max_ejected, parse_statuses(ejection.statuses), ejection.penalty)
