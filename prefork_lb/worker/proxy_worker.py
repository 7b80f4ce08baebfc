"""ProxyWorker: gunicorn's worker class for proxying, one process with one event loop.

The worker does what gunicorn's master expects of every worker: it obeys the signals, ends gracefully at SIGTERM, and ends after
`max_requests`. It gives a heartbeat while the loop goes round. A frozen loop gives none, and the master kills the worker.
"""
from __future__ import annotations

import gc
import os
import socket
from types import FrameType
from typing import Any

from prefork_lb import memory
from prefork_lb.errors import OutOfDescriptors
from prefork_lb.green.computing import Computing
from prefork_lb.green.dial import GreenDialer
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream, wait_any
from prefork_lb.gunicorn.internals import Worker
from prefork_lb.net.address import Address
from prefork_lb.net.descriptors import Descriptors, descriptor_limit, most_clients
from prefork_lb.net.stream import Stream
from prefork_lb.net.tls import ClientTLS
from prefork_lb.proxy.request import Ended, tell_all
from prefork_lb.upstream.runtime import Runtime
from prefork_lb.wire.head import HeadLimits
from prefork_lb.worker.acceptor import Acceptor
from prefork_lb.worker.client_tls import client_context, ticket_context
from prefork_lb.worker.gunicorn_access_log import GunicornAccessLog
from prefork_lb.worker.retirement import Order, Retirement
from prefork_lb.worker.service import ClientTimeouts, Service
from prefork_lb.worker.setup import ProxyApplication, ProxySetup, nothing

_HEARTBEAT_S = 1.0
_GRACE_S = 1.0  # a retired worker that still has clients after this time lingers
_PLAIN_TIMEOUT_S = 60.0
_AHEAD_S = 0.5  # gunicorn's master counts graceful_timeout from before its SIGTERM, and then kills: a worker has to be quicker
_CLOSED_S = 0.001  # the hub closes descriptors at the end of a round
_KEPT_BYTES = 4 << 20


class ProxyWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """A gunicorn worker; gunicorn's documentation describes its life."""

    hub: Hub
    runtime: Runtime
    """How the application connects to servers when it is in this worker."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Made by gunicorn's master, before the fork."""
        super().__init__(*arguments, **named)
        self._setup: ProxySetup | None = None
        self.retirement = Retirement()
        if self.cfg.is_ssl:
            ticket_context()  # this worker inherits it
        # gunicorn takes the time of the heartbeat's file for monotonic time. A new file has the time of day, far in the future: a
        # worker that stood still before its first beat would never be taken for frozen.
        self.notify()

    def load_wsgi(self) -> None:
        self.hub = Hub()
        self._dialer = GreenDialer(self.hub)
        self._descriptors = Descriptors(self._free_idle)
        self.runtime = Runtime(self._dial, self.hub.every, True, self._stream, wait_any, Computing(self.hub).run, self.hub.sleep,
                               self.hub.soon)
        super().load_wsgi()

    def _dial(self, address: Address, timeout_s: float, tls: ClientTLS | None = None, preamble: bytes = b"",
              unless: Stream | None = None) -> GreenStream:
        try:
            return self._dialer.dial(address, timeout_s, tls, preamble, unless)
        except OutOfDescriptors:
            if not self._descriptors.free():
                raise
        self.hub.sleep(_CLOSED_S)
        return self._dialer.dial(address, timeout_s, tls, preamble, unless)

    def _free_idle(self) -> int:
        return self._setup.close_idle() if self._setup is not None else 0

    def _stream(self, connected: socket.socket) -> GreenStream:
        connected.setblocking(False)
        return GreenStream(self.hub, connected)

    def run(self) -> None:
        setup = self.wsgi.proxy_setup() if isinstance(self.wsgi, ProxyApplication) else None
        self._setup = setup
        self._service = self._make_service(setup)
        self._acceptors = self._listen(setup)
        self._quick = False
        self._may_linger = False  # it was retired, and nothing has stopped it since
        self._deadline = 0.0  # of the graceful end; 0: it has not begun
        hub = self.hub
        hub.watch(self.PIPE[0], self._signalled)
        hub.every(min(_HEARTBEAT_S, self.timeout / 2 or _HEARTBEAT_S), self._beat)
        self.notify()
        gc.collect()
        gc.freeze()
        # Connections are thousands of long-lived objects. At the usual threshold the collector would scan them far too often.
        gc.set_threshold(20_000, 20, 50)
        memory.give_back()
        memory.keep(_KEPT_BYTES)
        try:
            hub.run()
        finally:
            for connection in list(self._service.connections):
                connection.close()
            for acceptor in self._acceptors:
                acceptor.stop()

    # -- set up ------------------------------------------------------------------------------------------------

    def _make_service(self, setup: ProxySetup | None) -> Service:
        cfg = self.cfg
        limits = setup.limits if setup else HeadLimits()
        # gunicorn's limits hold as well; 0 is its word for none.
        line_bytes = min(filter(None, (limits.line_bytes, cfg.limit_request_field_size, cfg.limit_request_line)))
        limits = HeadLimits(limits.head_bytes, line_bytes, min(limits.fields, cfg.limit_request_fields or limits.fields))
        if setup:
            times = ClientTimeouts(setup.head_timeout_s, cfg.keepalive, setup.idle_timeout_s, setup.body_timeout_s,
                                   setup.body_rate, setup.ahead_bytes)
        else:
            times = ClientTimeouts(_PLAIN_TIMEOUT_S, cfg.keepalive, _PLAIN_TIMEOUT_S)
        is_logged = cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or (
            cfg.syslog and not cfg.disable_redirect_access_to_syslog)
        listeners: list[Ended] = [GunicornAccessLog(self.log).write] if is_logged else []
        if setup and setup.ended is not None:
            listeners.append(setup.ended)
        return Service(self.hub, setup.engine if setup else None, self.wsgi, setup.is_trusted if setup else lambda _: False,
                       limits, times, tell_all(listeners), cfg, setup.siblings if setup else None,
                       setup.most_lag_s if setup else 0.0, setup.note_shed if setup else nothing)

    def _listen(self, setup: ProxySetup | None) -> list[Acceptor]:
        cfg = self.cfg
        context = client_context(cfg, setup.certificates if setup else ()) if cfg.is_ssl else None
        siblings = setup.siblings if setup else None
        if siblings is not None:
            siblings.note_clients(0)
        most = min(cfg.worker_connections, most_clients(descriptor_limit()))
        return [Acceptor(self._service, listener, context, siblings, most, setup.proxy_protocol if setup else False,
                         self._descriptors) for listener in self.sockets]

    # -- what happens ------------------------------------------------------------------------------------------

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """End at once. gunicorn raises an exception here; in this worker it would hit the greenlet that happens to run."""
        self._quick = True
        self.alive = False
        self.cfg.worker_int(self)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End as `retirement` says. A lingering worker whose master has ended (an upgrade) gets no order: SIGTERM stops it."""
        if not self.alive and self._is_orphan():
            self.retirement.give(Order.STOP)
        self.alive = False

    def _is_orphan(self) -> bool:
        return bool(self.ppid != os.getppid())

    def _signalled(self) -> None:
        try:
            os.read(self.PIPE[0], 4096)
        except BlockingIOError:
            pass
        self._look()

    def _beat(self) -> None:
        self.notify()
        if self._is_orphan():
            self._look_without_master()
        if self._may_linger and self._setup is not None and self._setup.siblings.must_yield_row():
            self.log.warning("%d connections broken off: a new worker needs the place of this one, which has lingered longest",
                             len(self._service.connections))
            self.hub.stop()
        if self._service.requests >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after %d requests.", self._service.requests)
            if self.retirement.order is Order.SERVE:
                self.retirement.give(Order.RETIRE)
            self.alive = False
        self._look()

    def _look_without_master(self) -> None:
        if self.alive:
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False
            self.retirement.give(Order.STOP)
        elif self._may_linger and self._setup is not None and not self._setup.instance_lives():
            self.log.info("The instance has ended, shutting down: %s", self)
            self.retirement.give(Order.STOP)

    def _look(self) -> None:
        if self.alive:
            return
        if self._quick:
            self.hub.stop()
        elif not self._deadline:
            self._begin_to_end()
        elif self._may_linger and self.retirement.order is Order.STOP:
            self._may_linger = False
            self._end_by(self._grace_s())

    def _begin_to_end(self) -> None:
        linger_s = self._setup.linger_s if self._setup is not None else 0.0
        self._may_linger = self.retirement.order is Order.RETIRE and linger_s > 0
        self._end_by(linger_s if self._may_linger else self._grace_s())
        for acceptor in self._acceptors:
            acceptor.stop()
        self._acceptors = []
        self._service.on_end.append(self._end_if_done)
        self._service.close_soon()
        if self._may_linger:
            self.hub.call_at(self.hub.now + _GRACE_S, self._linger)
        self._end_if_done()

    def _grace_s(self) -> float:
        graceful_timeout: float = self.cfg.graceful_timeout
        return max(graceful_timeout - _AHEAD_S, 0.75 * graceful_timeout)

    def _end_by(self, seconds: float) -> None:
        """Break off the connections that are left after `seconds`, unless an earlier deadline is set."""
        deadline = self.hub.now + seconds
        if not self._deadline or deadline < self._deadline:
            self._deadline = deadline
            self.hub.call_at(deadline, self._end_if_done)

    def _linger(self) -> None:
        self.log.info("Worker %d was replaced and lingers: it goes on with %d connections, for %.0f s at most", self.pid,
                      len(self._service.connections), self._deadline - self.hub.now)
        self._service.on_end.append(self._tell_lingering)
        self._tell_lingering()

    def _tell_lingering(self) -> None:
        if self._setup is not None:
            self._setup.siblings.note_lingering(len(self._service.connections))

    def _end_if_done(self) -> None:
        left = len(self._service.connections)
        if not left:
            self.hub.stop()
        elif self.hub.now >= self._deadline:
            self.log.warning("%d connections broken off at the end of %s", left,
                             "listen.linger" if self._may_linger else f"graceful_timeout ({self.cfg.graceful_timeout} s)")
            self.hub.stop()
