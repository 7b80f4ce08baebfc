"""Everything one worker process has: from a configuration to the objects that serve it."""
from __future__ import annotations

import atexit
import gc
import logging
import random
from collections.abc import Mapping

from prefork_lb.clock import monotonic
from prefork_lb.config.current import path_of
from prefork_lb.config.model import Config
from prefork_lb.controller.launch import Launcher
from prefork_lb.log_summary import summary
from prefork_lb.net.networks import lies_in
from prefork_lb.net.tls import Certificate
from prefork_lb.proxy.attempt import AttemptSettings, Timeouts
from prefork_lb.proxy.counting import counting
from prefork_lb.proxy.filtering import tell_filters
from prefork_lb.proxy.inbound import response_parser
from prefork_lb.proxy.request import tell_all
from prefork_lb.proxy.tracing import Identities
from prefork_lb.shared.statistics import Tally
from prefork_lb.upstream.housekeeping import INTERVAL_S
from prefork_lb.upstream.runtime import Runtime
from prefork_lb.wiring.filters import MadeFilter, make_engine
from prefork_lb.wiring.guards import guards
from prefork_lb.wiring.logs import make_access_log, make_span_log
from prefork_lb.wiring.membership import Membership
from prefork_lb.wiring.pools import Needs, make_pool
from prefork_lb.wiring.routes import limiters, make_router, weights_of
from prefork_lb.worker.setup import ProxySetup, nothing


class Worker:
    """The pools and the engine of one worker process, and what it does on the side."""

    def __init__(self, config: Config, needs: Needs, filters: Mapping[str, MadeFilter], membership: Membership,
                 runtime: Runtime, error_log: str = "") -> None:
        """Put `config` into force in the instance. `needs` is what its pools need from outside, `filters` are its own.
        `error_log` is the file that the controller's messages go to; empty: standard error.

        Raises SegmentError, with nothing changed, when the instance has no room for it.
        """
        self._membership = membership
        slots = membership.put_into_force(config)
        self._launcher = Launcher(membership.segment, membership.ledger, membership.master, error_log)
        self._pools = {
            name: make_pool(name, pool, config, needs[name], slots[name], membership.ledger, membership.states, runtime)
            for name, pool in config.pools.items()}
        self._access_log = make_access_log(config.log)
        timeouts = config.proxy.timeouts
        settings = make_settings(config, runtime)
        router = make_router(config, limiters(config, membership.segment, membership.ledger, monotonic),
                             guards(config, membership.segment, membership.ledger, runtime, settings),
                             weights_of(membership.segment, membership.ledger))
        tally = self._tally(runtime.one_thread)
        listeners = [counting(tally)] if tally else []
        self.engine = make_engine(config, router, self._pools, settings, filters, membership.ledger,
                                  tell_all(listeners))
        if self._access_log is not None:
            listeners.append(self._access_log.write)
        if (spans := make_span_log(config.tracing)) is not None:
            listeners.append(spans.write)
        if filters:
            listeners.append(tell_filters)
        self.setup = ProxySetup(
            engine=self.engine, is_trusted=lies_in(config.proxy.trusted_proxies), limits=config.proxy.limits.head,
            head_timeout_s=timeouts.head, idle_timeout_s=timeouts.idle, body_timeout_s=timeouts.body,
            body_rate=config.proxy.limits.body_rate, ahead_bytes=config.proxy.buffers.response,
            proxy_protocol=config.listen.proxy_protocol, most_lag_s=config.proxy.limits.lag,
            certificates=[Certificate(path_of(entry.certificate), path_of(entry.key), entry.hosts)
                          for entry in config.listen.certificates],
            siblings=membership.ledger, linger_s=config.listen.linger, close_idle=self._close_idle,
            instance_lives=lambda: bool(membership.segment.masters()), ended=tell_all(listeners),
            note_shed=tally.count_shed if tally else nothing)
        runtime.every(INTERVAL_S, self._look_after)
        atexit.register(summary.flush)
        atexit.register(membership.ledger.note_end)
        # What is here now stays: the collector need not look at it again in the middle of requests.
        gc.collect()
        gc.freeze()

    def _tally(self, one_thread: bool) -> Tally | None:
        """This worker's part of the statistics; None when the instance keeps none."""
        segment = self._membership.segment
        return Tally(segment, self._membership.ledger.row, one_thread) if segment.layout.statistics else None

    def _close_idle(self) -> int:
        """Close the idle connections to servers; how many that were."""
        idle = [server.idle for pool in self._pools.values() for server in pool.servers]
        closed = sum(map(len, idle))
        for connections in idle:
            connections.close()
        return closed

    def _look_after(self) -> None:
        summary.tick()
        if self._access_log is not None:
            self._access_log.flush()
        try:
            self._launcher.look()
            self._membership.sweeper.sweep_if_overdue()
        except OSError as exc:  # /proc cannot be read, with all descriptors in use
            summary.tell(logging.ERROR, "cannot sweep", "cannot look for ended processes, which is tried again in %g s: %s",
                         INTERVAL_S, exc)
        for pool in self._pools.values():
            pool.tick()
        self._membership.ledger.adopt_members(min(pool.seen_members for pool in self._pools.values()))


def make_settings(config: Config, runtime: Runtime) -> AttemptSettings:
    """What attempts go by."""
    timeouts, limits = config.proxy.timeouts, config.proxy.limits.head
    return AttemptSettings(
        Timeouts(timeouts.connect, timeouts.response, timeouts.idle), limits, config.proxy.via.encode(), monotonic,
        response_parser(limits), runtime.dial, runtime.sleep,
        runtime.wait_any, runtime.aside, config.proxy.buffers.request, config.proxy.buffers.chunked,
        _identities(config), config.proxy.server_timing)


def _identities(config: Config) -> Identities | None:
    if config.tracing.otlp:
        return Identities(random.Random(), config.tracing.sample)
    return Identities(random.Random()) if config.proxy.request_id else None
