"""New connections to servers, from greenlets."""
from __future__ import annotations

import errno
import functools
import os
import socket

from greenlet import getcurrent, greenlet

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.green.channel import NEVER, WRITABLE
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream
from prefork_lb.green.tls_stream import TLSStream
from prefork_lb.net.address import Address
from prefork_lb.net.failures import connect_error, connect_timeout
from prefork_lb.net.happy_eyeballs import Attempts, Failure
from prefork_lb.net.name_lookup import Endpoint, known_endpoint
from prefork_lb.net.resolver import Name, Resolver
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout, Unneeded
from prefork_lb.net.tls import ClientTLS

_FULL_QUEUE_PAUSE_S = 0.005
_LEAST_PAUSE_S = 0.001


class GreenDialer:
    """Connects to servers."""

    def __init__(self, hub: Hub, resolver: Resolver | None = None) -> None:
        self._hub = hub
        self._resolver = resolver or Resolver()

    def dial(self, address: Address, timeout_s: float, tls: ClientTLS | None = None, preamble: bytes = b"",
             unless: Stream | None = None) -> GreenStream:
        """A `net.dial.Dial`."""
        assert unless is None or isinstance(unless, GreenStream)
        attempt = _Attempt(self._hub, address, timeout_s, tls, preamble)
        endpoint = known_endpoint(address)
        if endpoint is not None:
            return attempt.connect(endpoint, {}, unless)
        resolver = self._resolver
        name = resolver.find(address)
        if name.asked_at is not None:
            self._await_answer(name, resolver.wait_s(name, timeout_s))
        resolver.require(name, timeout_s)
        endpoints, may_grow = resolver.so_far(name)
        if len(endpoints) == 1 and not may_grow:
            return attempt.connect(endpoints[0], {}, unless)
        endpoint, stream = _Race(attempt, resolver, name, unless).run()
        resolver.note_worked(name, endpoint)
        return stream

    def _await_answer(self, name: Name, seconds: float) -> None:
        hub = self._hub
        bell = _Bell(hub)

        def answered() -> None:  # in the thread of the look-up
            hub.wake(bell.ring)

        self._resolver.on_answer(name, answered)
        try:
            bell.wait(hub.now + seconds)
        finally:
            self._resolver.forget(name, answered)


class _Bell:
    """Wakes one greenlet. A ring that comes before the wait lets the next wait return at once."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiter: greenlet | None = None
        self._is_rung = False

    def ring(self) -> None:
        """Resume the waiting greenlet. Called in the hub."""
        self._is_rung = True
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.switch()

    def wait(self, until: float, beside: GreenStream | None = None) -> None:
        """Wait for a ring, at most until this instant, or for an event of the stream `beside`."""
        if not self._is_rung:
            timer = self._hub.call_at(until, self.ring)
            self._waiter = getcurrent()
            if beside is not None:
                beside.deadline, beside.reader = NEVER, self._waiter
            try:
                self._hub.switch()
            finally:
                self._waiter = None
                timer.cancel()
                if beside is not None:
                    beside.reader = None
        self._is_rung = False


class _Attempt:
    """Connects to one address. The attempts of one dial share this object and its deadline."""

    def __init__(self, hub: Hub, address: Address, timeout_s: float, tls: ClientTLS | None, preamble: bytes) -> None:
        self.hub = hub
        self.deadline = hub.clock() + timeout_s  # `hub.now` may be so old that no time would be left
        self._address = address
        self._timeout_s = timeout_s
        self._tls = tls
        self._preamble = preamble

    def connect(self, endpoint: Endpoint, under_way: dict[Endpoint, GreenStream],
                unless: GreenStream | None = None) -> GreenStream:
        """Connect to one address; meanwhile the stream is in `under_way`. Raises as a `net.dial.Dial`."""
        try:
            self._connect(endpoint, under_way, unless)
            if self._preamble:
                under_way[endpoint].send(self._preamble, self.deadline - self.hub.now)
            if self._tls is not None:
                self._secure(self._tls, endpoint, under_way, unless)
        except BaseException as exc:
            stream = under_way.pop(endpoint, None)
            if stream is not None:
                stream.close()
            if isinstance(exc, StreamTimeout):
                raise self.timed_out(isinstance(stream, TLSStream)) from exc
            if isinstance(exc, StreamClosed):
                raise ConnectFailed(f"{self._address}: {exc}") from exc
            if isinstance(exc, OSError):
                raise connect_error(self._address, exc, *endpoint) from exc
            raise
        return under_way.pop(endpoint)

    def timed_out(self, is_connected: bool = False) -> ConnectTimeout:
        """The error when there is no time left; `is_connected`: only the TLS handshake was missing."""
        return connect_timeout(self._address, self._timeout_s, is_connected)

    def _connect(self, endpoint: Endpoint, under_way: dict[Endpoint, GreenStream], unless: GreenStream | None) -> None:
        hub, deadline = self.hub, self.deadline
        family, where = endpoint
        connected = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if family != socket.AF_UNIX:
                # A small head must not wait for the acknowledgement of the one before (RFC 9293 3.7.4).
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = connected.connect_ex(where)
            while code == errno.EAGAIN and family == socket.AF_UNIX:
                # The server's queue is full. No event tells when a unix socket has room (connect(2)), so we try again.
                if hub.now >= deadline:
                    raise StreamTimeout
                _check_is_needed(unless)
                hub.sleep(_FULL_QUEUE_PAUSE_S)
                code = connected.connect_ex(where)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            stream = under_way[endpoint] = GreenStream(hub, connected)
        except BaseException:
            connected.close()
            raise
        if code == errno.EINPROGRESS:
            # The first event means that the connect has ended; SO_ERROR says how.
            while not stream.ready & WRITABLE:
                _check_is_needed(unless)
                if not (stream.wait_writable(deadline) if unless is None else stream.wait_writable_or(unless, deadline)):
                    raise StreamTimeout
            code = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))

    def _secure(self, tls: ClientTLS, endpoint: Endpoint, under_way: dict[Endpoint, GreenStream],
                unless: GreenStream | None) -> None:
        connected = under_way.pop(endpoint).detach()
        try:
            secured = under_way[endpoint] = TLSStream(
                self.hub, connected, tls.context, server_side=False, server_name=tls.server_name)
        except BaseException:
            connected.close()
            raise
        secured.handshake(self.deadline - self.hub.now, unless)


def _check_is_needed(unless: GreenStream | None) -> None:
    if unless is not None and not unless.is_quiet():
        raise Unneeded


class _Race:
    """The attempts of one dial to a name, each on a greenlet of its own."""

    def __init__(self, attempt: _Attempt, resolver: Resolver, name: Name, unless: GreenStream | None) -> None:
        self._attempt = attempt
        self._hub = attempt.hub
        self._resolver = resolver
        self._name = name
        self._unless = unless
        self._attempts = Attempts(attempt.deadline)
        self._under_way: dict[Endpoint, GreenStream] = {}
        self._winner: tuple[Endpoint, GreenStream] | None = None
        self._unexpected: Exception | None = None  # what an attempt raised that is no failure to connect
        self._is_over = False
        self._bell = _Bell(self._hub)  # an attempt has ended

    def run(self) -> tuple[Endpoint, GreenStream]:
        """Return the first connection and its address, and end the other attempts.

        Raises as a `net.dial.Dial`, and at once what an attempt raised beside that.
        """
        attempts, hub = self._attempts, self._hub
        try:
            while True:
                attempts.update(*self._resolver.so_far(self._name))
                while (endpoint := attempts.due(hub.now)) is not None:
                    hub.soon(functools.partial(self._try, endpoint))
                if attempts.is_over(hub.now) and not self._under_way:
                    raise attempts.error(self._attempt.timed_out())
                # At the deadline each attempt under way ends by itself: it may be connected, and its event behind others.
                _check_is_needed(self._unless)
                self._bell.wait(max(attempts.look_at(hub.now), hub.now + _LEAST_PAUSE_S), self._unless)
                if self._winner is not None:
                    return self._winner
                if self._unexpected is not None:
                    raise self._unexpected
        finally:
            self._is_over = True
            for stream in self._under_way.values():
                # Its greenlet is resumed by the timeout, and closes the stream.
                hub.arm(stream, hub.now)

    def _try(self, endpoint: Endpoint) -> None:
        if self._is_over:
            return
        stream: GreenStream | None = None
        failure: Failure | None = None
        try:
            stream = self._attempt.connect(endpoint, self._under_way)
        except (ConnectFailed, ConnectTimeout, OutOfDescriptors) as exc:
            failure = exc
        except Exception as exc:
            if self._is_over or self._winner is not None:
                raise  # nobody waits for it: the hub logs it
            self._unexpected = exc
        if self._is_over or self._winner is not None:
            if stream is not None:
                stream.close()
            return
        if failure is not None:
            self._attempts.failed(failure)
        elif stream is not None:
            self._winner = endpoint, stream
        self._hub.call_at(self._hub.now, self._bell.ring)
