"""Which servers of a pool may be picked at this moment, and with what weight: the one place that decides it."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.transitions import Check, Ejection
from prefork_lb.upstream.server import UNLIMITED, Server

# A server in slow start has a fraction of its weight, and weights are whole numbers.
_SCALE = 100
_LEAST_SHARE = 0.10  # of its weight, at the start of slow start


@dataclass(frozen=True, slots=True)
class AvailabilityRules:
    """Of a pool."""

    slow_start_ms: int = 0
    panic_percent: int = 50


class UsableServers(NamedTuple):
    """The servers that a pick may choose from."""

    primaries: tuple[Server, ...]
    backups: tuple[Server, ...]
    trials: tuple[Server, ...] = ()  # ejected, and due to be tried with one request
    is_panic: bool = False  # too few servers are up by their checks, so checks are ignored
    is_ramping: bool = False  # weights change with time
    has_failed: bool = False  # all of them have: they are down by their checks, or ejected, and none is due to be tried
    keeping: tuple[Server, ...] = ()  # drained: no pick chooses them, and sessions that they have may stay, or try an ejected one


def choose_usable(servers: Sequence[Server], states: States, rules: AvailabilityRules, now_ms: int) -> UsableServers:
    """The servers that may be picked now; sets each server's weight and limit."""
    ready = [server for server in servers if states.admin[server.slot] == Admin.READY]
    up = [server for server in ready if states.check[server.slot] <= Check.UP]
    primaries = [server for server in ready if not server.backup]
    up_primaries = sum(not server.backup for server in up)
    # No panic while a backup is up: backups are there for an outage of all others.
    is_panic = up_primaries * 100 < rules.panic_percent * len(primaries) and up_primaries == len(up)
    taken = ready if is_panic else up
    here = [server for server in taken if not states.is_ejected(server.slot)]
    trials = tuple(server for server in taken if states.ejection[server.slot] == Ejection.TRIAL_DUE)
    is_well = bool(trials) or any(not states.is_ejected(server.slot) for server in up)
    if not here:
        here = taken  # every server is ejected: one that failed is better than none
    drained = (server for server in servers if states.admin[server.slot] == Admin.DRAIN)
    keeping = tuple(server for server in drained if (is_panic or states.check[server.slot] <= Check.UP)
                    and states.ejection[server.slot] in (Ejection.NONE, Ejection.TRIAL_DUE))
    is_ramping = _set_weights(servers, states, rules, now_ms)
    return UsableServers(tuple(server for server in here if not server.backup), tuple(server for server in here if server.backup),
                         trials, is_panic, is_ramping, bool(here) and not is_well, keeping)


def _set_weights(servers: Sequence[Server], states: States, rules: AvailabilityRules, now_ms: int) -> bool:
    is_ramping = False
    for server in servers:
        weight = states.weight_set[server.slot] or server.configured_weight
        limit_set = states.limit_set(server.slot)
        limit = own_limit = server.configured_limit if limit_set is None else limit_set or UNLIMITED
        if rules.slow_start_ms:
            risen_ms = states.risen[server.slot]
            share = ramp(now_ms - risen_ms, rules.slow_start_ms) if risen_ms else 1.0
            weight = max(1, round(weight * _SCALE * share))
            if share < 1:
                is_ramping = True
                limit = max(1, int(limit * share))
        if (slots := states.slots(server.slot)) is not None:  # the others of its limit are other balancers'
            limit, own_limit = min(limit, slots), min(own_limit, slots)
        # One store each: other threads of this worker read them, under the ledger's lock, which is not held here.
        server.weight, server.max_connections, server.own_limit = weight, limit, own_limit
    return is_ramping


def ramp(age_ms: int, window_ms: int) -> float:
    """The share of its weight that a server has in slow start, `age_ms` after it came up: Envoy's curve with aggression 1
    and a minimum of 10 % (docs of Envoy, "Slow start mode")."""
    return min(1.0, max(_LEAST_SHARE, max(1, age_ms) / window_ms))
