"""An instance as one document that can be written as JSON: what the API, its stream and the dashboard show."""
from __future__ import annotations

import time
from typing import Any

import msgspec

from prefork_lb import __version__
from prefork_lb.config.model import Config, PoolConfig
from prefork_lb.config.published import decode_published
from prefork_lb.observe.conditions import condition
from prefork_lb.observe.rates import Growth
from prefork_lb.shared import layout as at
from prefork_lb.shared.desired import published
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.view import InstanceView, PoolView, ServerView, WorkerView, view

_RATES_S = 5.0


class Snapshots:
    """Takes documents of one instance. Rates are over the last seconds, so it is to be asked about once a second."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._growth = Growth(_RATES_S)
        self._mark = 0
        self._config: Config | None = None

    def take(self) -> dict[str, Any]:
        """The document of this moment."""
        now = view(self._segment)
        config = self._configuration()
        self._growth.note({("requests", server.pool, server.address): server.requests for server in now.servers})
        cells = self._segment.cells
        return {
            "version": __version__,
            "now": round(time.time(), 3),
            "started": cells[at.H_CREATED],
            "master": now.master,
            "generation": now.generation,
            "controller": {"pid": now.controller, "silent_s": now.controller_silent_s} if now.controller else None,
            "statistics": False,
            "totals": _totals(now),
            "workers": [_worker(worker) for worker in now.workers],
            "pools": [self._pool(pool, now, config.pools.get(pool.name) if config is not None else None) for pool in now.pools],
        }

    def _configuration(self) -> Config | None:
        if self._segment.cells[at.H_CONFIGURATION] != self._mark:
            self._mark, data = published(self._segment)
            self._config = _decoded(data)
        return self._config

    def _pool(self, pool: PoolView, instance: InstanceView, config: PoolConfig | None) -> dict[str, Any]:
        servers = [server for server in instance.servers if server.pool == pool.name]
        return {
            "name": pool.name,
            "policy": config.policy if config is not None else None,
            "mode": config.mode if config is not None else None,
            "sticky": config.sticky.mode if config is not None and config.sticky is not None else "",
            "in_flight": pool.in_flight, "in_flight_limit": pool.in_flight_limit,
            "waiting": pool.waiting, "queue_size": pool.queue_size,
            "retries": pool.retries, "retries_limit": pool.retries_limit,
            "refused": pool.refused, "panic": pool.panic, "tripped": pool.tripped,
            "requests": None, "rate": None, "codes": None, "error_rate": None, "p50_ms": None, "p99_ms": None,
            "servers": [self._server(server) for server in servers],
        }

    def _server(self, server: ServerView) -> dict[str, Any]:
        state, reason = condition(server)
        return {
            "pool": server.pool, "address": server.address, "state": state, "reason": reason,
            "admin": server.state, "check": server.check, "note": server.note,
            "checked_s": _rounded(server.checked_s), "ejected_s": round(server.ejected_s, 1), "usable": server.usable,
            "weight": server.weight, "weight_configured": server.weight_configured,
            "max_connections": server.max_connections, "max_connections_configured": server.max_connections,
            "backup": server.backup, "origin": "configuration",
            "in_flight": server.in_flight, "requests": server.requests, "failures": server.failures,
            "rate": self._growth.rate(("requests", server.pool, server.address)),
            "codes": None, "bytes_in": None, "bytes_out": None, "latency_ms": None, "sessions": None, "etag": "",
        }


def configuration_in_force(segment: Segment) -> Config | None:
    """The configuration in force; None when there is none yet, or this version cannot read it."""
    return _decoded(published(segment)[1])


def _decoded(data: bytes) -> Config | None:
    try:
        return decode_published(data)[0] if data else None
    except msgspec.MsgspecError:
        return None


def _totals(instance: InstanceView) -> dict[str, Any]:
    return {
        "requests": None, "rate": None, "in_flight": sum(pool.in_flight for pool in instance.pools),
        "waiting": sum(pool.waiting for pool in instance.pools), "clients": None, "errors": None, "error_rate": None,
        "bytes_in": None, "bytes_out": None, "bytes_out_rate": None, "p50_ms": None, "p99_ms": None,
    }


def _worker(worker: WorkerView) -> dict[str, Any]:
    return {"pid": worker.pid, "generation": worker.generation, "in_flight": worker.in_flight, "clients": None,
            "lingers_s": worker.lingers_s, "lag_ms": None}


def _rounded(value: float | None) -> float | None:
    return round(value, 1) if value is not None else None
