"""The composition root: from a configuration to the objects of one worker."""
from __future__ import annotations

import atexit
import functools
import gc
import ipaddress
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prefork_lb.balance.registry import policy_class
from prefork_lb.clock import monotonic
from prefork_lb.config import Config, model
from prefork_lb.config.current import load_as_worker
from prefork_lb.config.published import decode_published, encode
from prefork_lb.controller.launch import Launcher
from prefork_lb.errors import ConfigError, InvariantError, PreforkLBError
from prefork_lb.gunicorn.internals import AppImportError
from prefork_lb.gunicorn.internals import Worker as GunicornWorker
from prefork_lb.log_summary import summary
from prefork_lb.net.tls import Certificate
from prefork_lb.proxy.attempt import Settings, Timeouts
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.logged import make_printable
from prefork_lb.proxy.request import TrustCheck
from prefork_lb.routing.match import Route, Router
from prefork_lb.shared.desired import publish, published
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.saved import restore
from prefork_lb.shared.segment import attach_or_create, find
from prefork_lb.shared.states import States
from prefork_lb.shared.sweeping import Sweeper
from prefork_lb.shared.table import PoolEntry, PoolSlots, ServerEntry, register
from prefork_lb.shared.transitions import Check
from prefork_lb.upstream.housekeeping import INTERVAL_S
from prefork_lb.upstream.runtime import BLOCKING, Runtime
from prefork_lb.wire.head import HeadLimits, ResponseHead, kept_bytes, parse_response
from prefork_lb.wire.memo import Memo
from prefork_lb.wiring.pools import make_pool
from prefork_lb.worker.setup import ProxySetup
from prefork_lb.wsgi.client import ClientRules
from prefork_lb.wsgi.front_end import Environ, StartResponse, WSGIFrontEnd

log = logging.getLogger("prefork_lb")

# Room in shared memory: rows for worker processes (old and new ones of a reload together), and for servers at least.
WORKER_ROWS = 256
LEAST_SERVERS = 256


class Worker:
    """Everything one worker process has: its row in the ledger, its pools, its engine."""

    def __init__(self, config: Config, master: int, runtime: Runtime, error_log: str = "") -> None:
        """Attach to the instance of the gunicorn master with the pid `master`; `error_log` is the file that messages go to,
        empty: standard error. Raises PreforkLBError."""
        servers = sum(len(pool.servers) for pool in config.pools.values())
        self._segment = attach_or_create(master, WORKER_ROWS, max(LEAST_SERVERS, 2 * servers), _predecessor())
        self._ledger = Ledger(self._segment, runtime.one_thread)
        self._states = States(self._segment)
        entries = [PoolEntry(name, [_entry(server) for server in pool.servers], pool.breaker.in_flight,
                             pool.queue.size if pool.queue else 0, pool.breaker.retries) for name, pool in config.pools.items()]
        slots = register(self._segment, self._ledger, entries)
        self._begin_checks(config, slots)
        if config.state.file:
            told = restore(Path(config.state.file), config.state.max_age, self._segment, self._ledger, self._states)
            if told:
                log.warning("%s", told)
        self._launcher = Launcher(self._segment, self._ledger, master, error_log)
        self._sweeper = Sweeper(self._segment, self._ledger, self._states)
        self._pools = {name: make_pool(name, pool, config, slots[name], self._ledger, self._states, runtime)
                       for name, pool in config.pools.items()}
        timeouts = config.proxy.timeouts
        limits = HeadLimits(config.proxy.limits.head_bytes, config.proxy.limits.line_bytes, config.proxy.limits.fields)
        self.engine = Engine(_router(config), self._pools, Settings(
            Timeouts(timeouts.connect, timeouts.response, timeouts.idle), limits, config.proxy.via.encode(), monotonic,
            Memo[bytes, ResponseHead](lambda block: parse_response(block, limits), kept_bytes), runtime.dial, runtime.sleep,
            runtime.wait_any, config.proxy.buffers.request, config.proxy.buffers.chunked))
        self.setup = ProxySetup(
            self.engine, trust_check(config.proxy.trusted_proxies), limits, timeouts.head, timeouts.idle,
            timeouts.body, config.proxy.limits.body_rate, config.proxy.buffers.response,
            config.listen.proxy_protocol, config.proxy.limits.lag,
            [Certificate(entry.certificate, entry.key, entry.hosts) for entry in config.listen.certificates], self._ledger,
            config.listen.linger, self._close_idle, lambda: bool(self._segment.masters()))
        publish(self._segment, self._ledger, encode(config))  # all of it could be had
        runtime.every(INTERVAL_S, self._look_after)
        atexit.register(summary.flush)
        # What is here now stays: the collector need not look at it again in the middle of requests.
        gc.collect()
        gc.freeze()

    def _begin_checks(self, config: Config, slots: Mapping[str, PoolSlots]) -> None:
        """Give servers that are to be checked from now on their first state, and take it from those that are not any more."""
        states = self._states
        with self._ledger.locked():
            for name, pool in config.pools.items():
                for slot in slots[name].slots:
                    if pool.health is None:
                        states.forget_check(slot)
                    elif states.check[slot] == Check.NONE:
                        states.set_check(slot, Check.UP if pool.health.start == "up" else Check.CHECKING, "not checked yet")
                        states.checked[slot] = 0

    def _close_idle(self) -> int:
        """Close the idle connections to servers; how many that were."""
        idle = [server.idle for pool in self._pools.values() for server in pool.servers]
        closed = sum(map(len, idle))
        for connections in idle:
            connections.close()
        return closed

    def _look_after(self) -> None:
        summary.tick()
        try:
            self._launcher.look()
            self._sweeper.sweep_if_overdue()
        except OSError as exc:  # /proc cannot be read, with all descriptors in use
            log.error("cannot look for ended processes, which is tried again in %g s: %s", INTERVAL_S, exc)
        for pool in self._pools.values():
            pool.tick()


class Application:
    """`prefork_lb:app`: a WSGI callable that attaches to its instance at the first request, or when told to.

    It may be made in gunicorn's master (with --preload) or in each worker; nothing is shared or started before the worker
    is its own process.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._made_by, self._made_under = os.getpid(), _gunicorn_master()
        self._front_end: WSGIFrontEnd | None = None
        self._worker: Worker | None = None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        front_end = self._front_end or self.start()
        return front_end(environ, start_response)

    @property
    def config(self) -> Config:
        """The configuration that it was made for."""
        return self._config

    def proxy_setup(self) -> ProxySetup:
        """What ProxyWorker needs to serve clients without WSGI. Attaches this process. Raises PreforkLBError."""
        self.start()
        if self._worker is None:
            raise InvariantError("started without a worker")
        return self._worker.setup

    def start(self) -> WSGIFrontEnd:
        """Attach this process. Calling it again does nothing. Raises PreforkLBError."""
        # Made here and not in __init__: under --preload that ran before gevent replaced the locks. setdefault is atomic.
        starting = self.__dict__.setdefault("_starting", threading.Lock())
        with starting:
            if self._front_end is None:
                _log_like_gunicorn()
                if self._made_by != os.getpid():
                    self._read_again()
                runtime = getattr(_gunicorn_worker(), "runtime", BLOCKING)
                self._worker = self._make_worker(runtime)
                setup = self._worker.setup
                self._front_end = WSGIFrontEnd(setup.engine, setup.is_trusted, ClientRules(
                    setup.limits, setup.idle_timeout_s, setup.body_timeout_s, setup.body_rate,
                    setup.ahead_bytes))
            return self._front_end

    def _make_worker(self, runtime: Runtime) -> Worker:
        """Put the configuration into force, or go by the one that is: a reload must not end what runs."""
        try:
            check_policies(self._config)
            return Worker(self._config, self._master(), runtime, _error_log())
        except PreforkLBError as exc:
            before = _in_force(self._master())
            if before is None or before == self._config:
                raise
            log.error("the configuration cannot be put into force, the one before stays:\n%s", exc)
            self._config = before
            return Worker(before, self._master(), runtime, _error_log())

    def _read_again(self) -> None:
        """Take over a configuration that changed since the master preloaded this object; a HUP does not load it anew."""
        try:
            self._config = load_as_worker()
        except ConfigError as exc:
            log.error("the configuration is bad, the one of the start stays in force:\n%s", exc)

    def _master(self) -> int:
        """The process whose children share one instance."""
        if self._made_by != os.getpid():
            return self._made_by  # --preload: made in the master
        return self._made_under or os.getpid()  # a server other than gunicorn is taken for a single process


def application() -> Application:
    """The application for the configuration that is found.

    Raises gunicorn's AppImportError, which ends the start with the message.
    """
    try:
        made = Application(load_as_worker())
        if _gunicorn_master():
            made.start()
        else:
            check_policies(made.config)
    except PreforkLBError as exc:
        raise AppImportError(str(exc)) from exc
    return made


def check_policies(config: Config) -> None:
    """See whether all policies can be had. Raises ConfigError."""
    for name, pool in config.pools.items():
        try:
            policy_class(pool.policy)
        except ValueError as exc:
            raise ConfigError([f"{config.source}: pools.{name}.policy: {exc}"]) from exc


def _in_force(master: int) -> Config | None:
    """What the workers of this gunicorn master go by at the moment; None if there are none yet."""
    segment = find(master)
    if segment is None:
        return None
    _, data = published(segment)
    segment.close()
    return decode_published(data)[0] if data else None


def _gunicorn_worker() -> GunicornWorker | None:
    """The gunicorn worker that this process is; None if it is none. A worker has taken its signals over."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return worker if isinstance(worker, GunicornWorker) else None


def _error_log() -> str:
    """The file that gunicorn's messages go to; empty: standard error."""
    worker = _gunicorn_worker()
    name = worker.cfg.errorlog if worker is not None else "-"
    return "" if name in ("-", None) else os.path.abspath(name)


def _gunicorn_master() -> int:
    """The pid of the gunicorn master whose worker this process is; 0 if it is none.

    A worker knows its master also when that is dead and it has another parent by now.
    """
    worker = _gunicorn_worker()
    return int(worker.ppid) if worker is not None else 0


def trust_check(networks: Sequence[str]) -> TrustCheck:
    """Whether an address lies in one of `networks`; answers are remembered."""
    parsed = [ipaddress.ip_network(network, strict=False) for network in networks]
    if not parsed:
        return lambda address: False

    @functools.lru_cache(maxsize=4096)
    def is_trusted(address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(ip in network for network in parsed)

    return is_trusted


def _router(config: Config) -> Router:
    routes = [Route(route.hosts, route.paths, route.pool) for route in config.routes]
    if not routes:
        if len(config.pools) != 1:
            raise InvariantError("several pools and no route: the configuration's check lets no such file pass")
        routes = [Route((), (), next(iter(config.pools)))]
    return Router(routes)


def _entry(server: model.ServerConfig) -> ServerEntry:
    return ServerEntry(server.address, server.weight, server.max_connections, server.backup)


def _log_like_gunicorn() -> None:
    """Write our log lines where gunicorn writes its own, unless the site has set up something else."""
    worker = _gunicorn_worker()
    if worker is not None:
        make_printable(worker.log)
    gunicorn = logging.getLogger("gunicorn.error")
    if gunicorn.handlers and not log.hasHandlers():
        log.handlers = gunicorn.handlers
        log.setLevel(gunicorn.level)


def _predecessor() -> int:
    """The pid of the master that this one replaces: gunicorn tells it so at an upgrade by USR2."""
    pid = os.environ.get("GUNICORN_PID", "")
    return int(pid) if pid.isdigit() else 0
