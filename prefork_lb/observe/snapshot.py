"""An instance as one document that can be written as JSON: what the API, its stream and the dashboard show."""
from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from prefork_lb import __version__
from prefork_lb.clock import Clock, monotonic
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.observe.percentiles import percentile_ms
from prefork_lb.observe.rates import CounterRates
from prefork_lb.observe.server_condition import condition
from prefork_lb.observe.sessions import SessionCounter
from prefork_lb.observe.splits import splits_in_force
from prefork_lb.shared import layout as at
from prefork_lb.shared.discovered import Discovered
from prefork_lb.shared.scaling_state import Scaling
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import SplitView
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.statistics import BOUNDS_S, CLASSES
from prefork_lb.shared.view import InstanceView, PoolView, ServerView, WorkerView, view

_RATES_S = 5.0
_TIMES_S = 10.0
_BUCKETS = range(len(BOUNDS_S) + 1)

Document = dict[str, Any]


class Snapshots:
    """Takes documents of one instance. Rates are over the last seconds, so it is to be asked about once a second."""

    def __init__(self, segment: Segment, clock: Clock = monotonic) -> None:
        self._segment = segment
        self._recent, self._times = CounterRates(_RATES_S, clock), CounterRates(_TIMES_S, clock)
        self._mark = 0
        self._config: Config | None = None
        self._states = States(segment)
        self._sessions = SessionCounter(segment, self._states, clock)
        self._busy_ms: dict[tuple[str, str], int] = {}  # when a request was last seen in flight on a drained server

    def take(self) -> Document:
        """The document of this moment. Numbers that the instance does not keep are None."""
        now = view(self._segment)
        config = self._configuration()
        self._note(now)
        self._busy_ms = {(server.pool, server.address): now_ms() if server.in_flight else
                         self._busy_ms.get((server.pool, server.address), 0) for server in now.servers if server.state == "drain"}
        pools = [self._pool(pool, [server for server in now.servers if server.pool == pool.name],
                            config.pools.get(pool.name) if config is not None else None) for pool in now.pools]
        return {
            "version": __version__,
            "now": round(time.time(), 3),
            "started": now.started,
            "master": now.master,
            "generation": now.generation,
            "controller": {"pid": now.controller, "silent_s": _rounded(now.controller_silent_s)} if now.controller else None,
            "statistics": now.numbers is not None,
            "totals": self._totals(now, pools),
            "workers": [_worker(worker) for worker in now.workers],
            "pools": pools,
            "splits": [_split(split) for split in splits_in_force(self._segment, config)] if config is not None else [],
            "cluster": _cluster(now),
        }

    def _configuration(self) -> Config | None:
        mark = self._segment.cells[at.H_CONFIGURATION]
        if mark != self._mark:
            self._mark, self._config = mark, configuration_of(self._segment)
        return self._config

    def _note(self, now: InstanceView) -> None:
        """Take over the counters that rates and times are worked out from."""
        counters: dict[Any, float] = {}
        times: dict[Any, float] = {}
        for server in now.servers:
            key = server.pool, server.address
            counters["attempts", *key] = server.requests
            if server.numbers is not None:
                counters["5xx", *key] = server.numbers.codes["5xx"]
                counters["bytes_out", *key] = server.numbers.bytes_out
                times["answers", *key], times["seconds", *key] = server.numbers.answers, server.numbers.seconds
        for pool in now.pools:
            if pool.numbers is not None:
                counters["requests", pool.name] = sum(pool.numbers.buckets)
                counters["own 5xx", pool.name] = _own(pool)["5xx"]
                times |= {("bucket", pool.name, number): count for number, count in enumerate(pool.numbers.buckets)}
        if now.numbers is not None:
            counters["requests"] = sum(now.numbers.codes.values())
            counters["5xx"] = now.numbers.codes["5xx"]
        self._recent.note(counters)
        self._times.note(times)

    def _pool(self, pool: PoolView, servers: list[ServerView], config: PoolConfig | None) -> Document:
        shown = [self._server(server) for server in servers]
        numbers: Document = dict.fromkeys(("requests", "rate", "codes", "error_rate", "p50_ms", "p99_ms"))
        if pool.numbers is not None:
            buckets = [self._times.of(("bucket", pool.name, number)) for number in _BUCKETS]
            errors = [("own 5xx", pool.name), *(("5xx", server.pool, server.address) for server in servers)]
            numbers = {
                "requests": sum(pool.numbers.buckets), "rate": self._recent.rate(("requests", pool.name)),
                "codes": _sums([_own(pool), *(server["codes"] for server in shown)]),
                "error_rate": self._recent.rate(*errors),
                "p50_ms": percentile_ms(buckets, 0.5), "p99_ms": percentile_ms(buckets, 0.99),
            }
        return {
            "name": pool.name,
            "policy": config.policy if config is not None else None,
            "mode": config.mode if config is not None else None,
            "sticky": config.sticky.mode if config is not None and config.sticky is not None else "",
            "in_flight": pool.in_flight, "in_flight_limit": pool.in_flight_limit,
            "waiting": pool.waiting, "queue_size": pool.queue_size,
            "retries": pool.retries, "retries_limit": pool.retries_limit,
            "refused": pool.refused, "panic": pool.panic, "tripped": pool.tripped,
            **numbers, "scaling": _scaling(pool.scaling), "discovery": _discovery(pool.discovery, config), "servers": shown,
        }

    def _server(self, server: ServerView) -> Document:
        state, reason = condition(server)
        key, numbers = (server.pool, server.address), server.numbers
        sessions = self._sessions.of(self._config, *key, server.slot, self._busy_ms.get(key, 0))
        answers = self._times.of(("answers", *key))
        return {
            "pool": server.pool, "address": server.address, "state": state, "reason": reason,
            "admin": server.state, "check": server.check, "note": server.note,
            "checked_s": _rounded(server.checked_s), "ejected_s": round(server.ejected_s, 1), "usable": server.usable,
            "weight": server.weight, "weight_configured": server.weight_configured,
            "max_connections": server.max_connections, "max_connections_configured": server.max_connections_configured,
            "backup": server.backup, "origin": server.origin, "source": server.source,
            "in_flight": server.in_flight, "requests": server.requests, "failures": server.failures,
            "failed_at": server.failed_at, "failure": server.failure,
            "rate": self._recent.rate(("attempts", *key)),
            "codes": numbers.codes if numbers is not None else None,
            "bytes_in": numbers.bytes_in if numbers is not None else None,
            "bytes_out": numbers.bytes_out if numbers is not None else None,
            "latency_ms": round(1000 * self._times.of(("seconds", *key)) / answers, 3) if answers else None,
            "sessions": sessions.count, "sessions_left": sessions.left, "etag": f'"{server.version}"',
        }

    def _totals(self, now: InstanceView, pools: list[Document]) -> Document:
        clients = [worker.clients for worker in now.workers if worker.clients is not None]
        totals: Document = {
            **dict.fromkeys(("requests", "rate")),
            "in_flight": sum(pool["in_flight"] for pool in pools), "waiting": sum(pool["waiting"] for pool in pools),
            "clients": sum(clients) if clients else None,
            **dict.fromkeys(("errors", "error_rate", "bytes_in", "bytes_out", "bytes_out_rate", "p50_ms", "p99_ms")),
        }
        if now.numbers is None:
            return totals
        servers = [server for pool in pools for server in pool["servers"]]
        buckets = [sum(self._times.of(("bucket", pool["name"], number)) for pool in pools) for number in _BUCKETS]
        return totals | {
            "requests": sum(now.numbers.codes.values()) + sum(pool["requests"] for pool in pools),
            "rate": _added([self._recent.rate("requests"), *(pool["rate"] for pool in pools)]),
            "errors": now.numbers.codes["5xx"] + sum(pool["codes"]["5xx"] for pool in pools),
            "error_rate": _added([self._recent.rate("5xx"), *(pool["error_rate"] for pool in pools)]),
            "bytes_in": sum(server["bytes_in"] for server in servers),
            "bytes_out": sum(server["bytes_out"] for server in servers),
            "bytes_out_rate": self._recent.rate(*(("bytes_out", server.pool, server.address) for server in now.servers)),
            "p50_ms": percentile_ms(buckets, 0.5), "p99_ms": percentile_ms(buckets, 0.99),
        }


def _added(rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return round(sum(known), 3) if known else None


def _own(pool: PoolView) -> dict[str, int]:
    """The answers that this proxy made itself to requests of a pool, by class. 4xx holds clients that left, too."""
    found = dict.fromkeys(CLASSES, 0)
    for code, count in (pool.numbers.own if pool.numbers is not None else {}).items():
        found[f"{code[0]}xx"] += count
    return found


def _sums(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    found = dict.fromkeys(CLASSES, 0)
    for part in parts:
        for name, count in part.items():
            found[name] += count
    return found


def _cluster(now: InstanceView) -> list[Document] | None:
    """The balancers that share; this one alone when it goes on by itself."""
    if not now.balancers:
        return None
    return [{"name": each.name, "self": each.is_self, "together": now.together or not each.is_self, "in_flight": each.in_flight,
             "silent_s": round(each.silent_s, 2), "round_ms": round(each.round_us / 1000, 2), "checks": each.checks}
            for each in now.balancers]


def _split(found: SplitView) -> Document:
    split = found.split
    return {"id": split.id, "route": split.place, "asks": split.asks, "cookie": split.cookie, "weights": found.weights,
            "weights_configured": split.weights, "etag": f'"{found.version}"'}


def _discovery(found: Discovered | None, config: PoolConfig | None) -> Document | None:
    if found is None:
        return None
    settings = config.discovery if config is not None else None
    return {"source": settings.where if settings is not None else None, "state": found.state.name.lower(),
            "last_ok": found.good_at or None, "error": found.error, "servers": found.servers}


def _scaling(scaling: Scaling | None) -> Document | None:
    if scaling is None:
        return None
    return {"mode": scaling.mode.name.lower(), "max": scaling.most, "wanted": scaling.wanted, "running": scaling.running,
            "starting": scaling.starting, "ending": scaling.ending, "why": scaling.why, "rolling": scaling.is_rolling}


def _worker(worker: WorkerView) -> Document:
    return {"pid": worker.pid, "generation": worker.generation, "in_flight": worker.in_flight, "clients": worker.clients,
            "lingers_s": worker.lingers_s, "lag_ms": round(1000 * worker.lag_s, 3) if worker.lag_s is not None else None,
            "compiled": worker.compiled}


def _rounded(value: float | None) -> float | None:
    return round(value, 1) if value is not None else None
