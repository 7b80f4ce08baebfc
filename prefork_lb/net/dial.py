"""New connections to servers, over ordinary sockets, or over gevent's where gevent has patched them."""
from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from prefork_lb.errors import ConnectTimeout
from prefork_lb.net.address import Address
from prefork_lb.net.connecting import FULL_QUEUE, FULL_QUEUE_PAUSE_S, Connecting
from prefork_lb.net.failures import connect_error, connect_timeout
from prefork_lb.net.happy_eyeballs import Attempts
from prefork_lb.net.name_lookup import Endpoint, known_endpoint
from prefork_lb.net.resolver import Name, Resolver
from prefork_lb.net.sockets import SocketStream
from prefork_lb.net.stream import Stream, Unneeded
from prefork_lb.net.tls import ClientTLS

SoFar = Callable[[], tuple[Iterable[Endpoint], bool]]
"""The addresses of a server that are known by now, and whether others may come."""


class Dial(Protocol):
    """Connects to servers."""

    def __call__(self, address: Address, timeout_s: float, tls: ClientTLS | None = None, preamble: bytes = b"",
                 unless: Stream | None = None) -> Stream:
        """Connect to a server; the addresses of a name are tried as `net.happy_eyeballs` says, within `timeout_s` in all.

        `preamble` is sent before anything else, TLS included. The connection is not needed once the stream `unless` has something
        to receive, or has ended. Raises Unneeded, ConnectTimeout, ConnectFailed, OutOfDescriptors.
        """


class SocketDialer:
    """Connects to servers, from any thread."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver or Resolver()

    def dial(self, address: Address, timeout_s: float, tls: ClientTLS | None = None, preamble: bytes = b"",
             unless: Stream | None = None) -> SocketStream:
        """A `Dial`."""
        deadline = time.monotonic() + timeout_s
        endpoint = known_endpoint(address)
        if endpoint is not None:
            race = _Race(address, timeout_s, deadline, tls, preamble, unless)
            return SocketStream(race.run(lambda: ((endpoint,), False)).connection)
        resolver = self._resolver
        name = resolver.find(address)
        if name.asked_at is not None:
            self._await_answer(name, resolver.wait_s(name, timeout_s))
        resolver.require(name, timeout_s)
        winner = _Race(address, timeout_s, deadline, tls, preamble, unless).run(lambda: resolver.so_far(name))
        resolver.note_worked(name, winner.endpoint)
        return SocketStream(winner.connection)

    def _await_answer(self, name: Name, seconds: float) -> None:
        answered = threading.Event()
        self._resolver.on_answer(name, answered.set)
        answered.wait(seconds)
        self._resolver.forget(name, answered.set)


class _Race:
    """The attempts of one dial, in one thread."""

    def __init__(self, address: Address, timeout_s: float, deadline: float, tls: ClientTLS | None, preamble: bytes,
                 unless: Stream | None) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._tls = tls
        self._preamble = preamble
        self._unless = unless
        self._attempts = Attempts(deadline)
        self._under_way: list[Connecting] = []

    def run(self, so_far: SoFar) -> Connecting:
        """The first attempt that is done; all others are ended. Raises as a `Dial`."""
        attempts = self._attempts
        try:
            while True:
                attempts.update(*so_far())
                now = time.monotonic()
                while (endpoint := attempts.due(now)) is not None:
                    self._begin(endpoint)
                for attempt in self._under_way:
                    if attempt.is_done:
                        self._under_way.remove(attempt)
                        return attempt
                if attempts.is_over(now):
                    raise attempts.error(self._timed_out())
                if self._unless is not None and not self._unless.is_quiet():
                    raise Unneeded
                self._wait(attempts.look_at(now) - now)
        finally:
            for attempt in self._under_way:
                attempt.close()

    def _begin(self, endpoint: Endpoint) -> None:
        try:
            attempt = Connecting(endpoint, self._preamble, self._tls)
        except OSError as exc:
            self._attempts.failed(connect_error(self._address, exc, *endpoint))
            return
        self._under_way.append(attempt)
        self._step(attempt)

    def _step(self, attempt: Connecting) -> None:
        try:
            attempt.step()
        except OSError as exc:
            self._under_way.remove(attempt)
            attempt.close()
            self._attempts.failed(connect_error(self._address, exc, *attempt.endpoint))

    def _wait(self, seconds: float) -> None:
        """Wait until an attempt can go on, and let it go on."""
        poller = select.poll()
        if self._unless is not None:
            poller.register(self._unless.fileno(), select.POLLIN)
        for attempt in self._under_way:
            if attempt.waits_for == FULL_QUEUE:
                seconds = min(seconds, FULL_QUEUE_PAUSE_S)
            else:
                poller.register(attempt.connection.fileno(), attempt.waits_for)
        ready = {descriptor for descriptor, _ in poller.poll(max(0.0, seconds) * 1000)}
        for attempt in list(self._under_way):
            if attempt.waits_for == FULL_QUEUE or attempt.connection.fileno() in ready:
                self._step(attempt)

    def _timed_out(self) -> ConnectTimeout:
        return connect_timeout(self._address, self._timeout_s, any(attempt.is_connected for attempt in self._under_way))
