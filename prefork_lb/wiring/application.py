"""`prefork_lb:app`: the WSGI callable, and how a process comes to serve by it."""
from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator

from prefork_lb.config.current import load_as_worker, read_at
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError, InvariantError, PreforkLBError
from prefork_lb.gunicorn.internals import AppImportError
from prefork_lb.upstream.runtime import BLOCKING, Runtime
from prefork_lb.wiring import host
from prefork_lb.wiring.filters import make_filters
from prefork_lb.wiring.membership import Membership, config_in_force, has_other_workers
from prefork_lb.wiring.pools import obtain_needs
from prefork_lb.wiring.room import room_for
from prefork_lb.wiring.serving import check_for_sync
from prefork_lb.wiring.worker import Worker, make_settings
from prefork_lb.worker.setup import ProxySetup
from prefork_lb.wsgi.client import ClientRules
from prefork_lb.wsgi.front_end import Environ, StartResponse, WSGIFrontEnd

log = logging.getLogger("prefork_lb")

_TRY_AGAIN_S = 0.25
# Passing shortages of the host or of this process: no descriptor is left, or no memory.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Application:
    """`prefork_lb:app`: a WSGI callable that attaches to its instance at the first request, or when told to.

    It may be made in gunicorn's master (with --preload) or in each worker; nothing is shared or started before the worker
    is its own process.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._made_by, self._made_under = os.getpid(), host.gunicorn_master()
        self._membership: Membership | None = None
        self._front_end: WSGIFrontEnd | None = None
        self._worker: Worker | None = None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        front_end = self._front_end or self.start(is_patient=False)
        return front_end(environ, start_response)

    @property
    def config(self) -> Config:
        """The configuration that this application was made for."""
        return self._config

    def proxy_setup(self) -> ProxySetup:
        """What ProxyWorker needs to serve clients without WSGI. Attaches this process. Raises PreforkLBError."""
        self.start()
        if self._worker is None:
            raise InvariantError("started without a worker")
        return self._worker.setup

    def start(self, is_patient: bool = True) -> WSGIFrontEnd:
        """Attach this process. Calling it again does nothing. Raises PreforkLBError, OSError.

        If a worker fails to start, gunicorn's master ends all workers. So while other workers of the instance run, a worker that
        cannot start tries again until it can. With `is_patient` False, as at a request, it raises instead.
        """
        # The lock is made here: under --preload __init__ ran before gevent replaced the locks. setdefault is atomic.
        starting = self.__dict__.setdefault("_starting", threading.Lock())
        with starting:
            if self._front_end is None:
                host.log_like_gunicorn()
                if self._made_by != os.getpid():
                    self._read_again()
                runtime = getattr(host.gunicorn_worker(), "runtime", BLOCKING)
                self._worker = self._try_until_made(runtime) if is_patient else self._make_worker(runtime)
                setup = self._worker.setup
                self._front_end = WSGIFrontEnd(setup.engine, setup.is_trusted, ClientRules(
                    setup.limits, setup.idle_timeout_s, setup.body_timeout_s, setup.body_rate,
                    setup.ahead_bytes), setup.ended)
            return self._front_end

    def _try_until_made(self, runtime: Runtime) -> Worker:
        told = ""
        while True:
            try:
                return self._make_worker(runtime)
            except (PreforkLBError, OSError) as exc:
                if not self._may_have_siblings():
                    raise
                if told != str(exc):
                    log.error("this worker waits, since others of its instance serve, and tries to start again: %s", exc)
                told = str(exc)
            host.nap(_TRY_AGAIN_S)

    def _may_have_siblings(self) -> bool:
        try:
            return has_other_workers(self._master())
        except OSError as exc:
            if exc.errno in _SHORTAGES:
                return True  # unknown: /proc or the segment cannot be read now
            raise

    def _make_worker(self, runtime: Runtime) -> Worker:
        """Put the configuration into force. If that fails, use the one in force: a failed reload must not end the instance."""
        try:
            return self._make_worker_for(self._config, runtime)
        except PreforkLBError as exc:
            before = config_in_force(self._master())
            if before is None or before == self._config:
                raise
            log.error("the configuration cannot be put into force, the one before stays:\n%s", exc)
            self._join(before, runtime).tell_of_refusal("; ".join(str(exc).splitlines()))
            self._config = before
        return self._make_worker_for(before, runtime)

    def _make_worker_for(self, config: Config, runtime: Runtime) -> Worker:
        if host.is_sync_worker():
            check_for_sync(config)
        # First what may fail outside of shared memory. Then this worker takes its row, for its whole life.
        needs = obtain_needs(config)
        filters = make_filters(config, make_settings(config, runtime))
        return Worker(config, needs, filters, self._join(config, runtime), runtime, host.error_log_file())

    def _join(self, config: Config, runtime: Runtime) -> Membership:
        """Join the instance, once for this worker. One that does not exist yet is made, with room for `config`."""
        if self._membership is None:
            room = room_for(config, host.configured_workers())
            self._membership = Membership(self._master(), host.predecessor(), room, runtime.one_thread, read_at())
        return self._membership

    def _read_again(self) -> None:
        """Load the configuration again: it may have changed since the master preloaded this object, which HUP does not repeat."""
        try:
            self._config = load_as_worker()
        except ConfigError as exc:
            log.error("the configuration is bad, the one of the start stays in force:\n%s", exc)

    def _master(self) -> int:
        """The process whose children share one instance."""
        if self._made_by != os.getpid():
            return self._made_by  # --preload: made in the master
        return self._made_under or os.getpid()  # a server other than gunicorn counts as a single process


def application() -> Application:
    """The application for the configuration that is found; one that cannot be put into force ends the start.

    Raises gunicorn's AppImportError, with the message.
    """
    try:
        made = Application(load_as_worker())
        if host.gunicorn_master():
            made.start()
        else:
            obtain_needs(made.config)
    except PreforkLBError as exc:
        raise AppImportError(str(exc)) from exc
    return made
