"""What names resolve to: remembered, and looked up beside those who connect.

Facts: getaddrinfo(3) waits for as long as the system's configuration says, half a minute with three silent name servers, and
nothing ends it before; nor does it tell how long an answer is good for. So look-ups run in daemon threads: one for a name at a
time, a few in all, and no process waits for one when it ends. Whoever connects goes on with the addresses that are known.
"""
from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from prefork_lb.clock import Clock, monotonic
from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.net.address import Address
from prefork_lb.net.happy_eyeballs import Failure, in_order
from prefork_lb.net.names import Endpoint, look_up

# Short enough to follow a change, long enough that a busy pool does not ask for every connection.
_FRESH_S = 5.0
# An answer that is older is not used before a quick resolver had the time to give a new one: the address may be another server's
# by now. RFC 8305 8 gives a second answer as much.
_PATIENCE_S = 0.05
# RFC 6555 4.2: what was found out about addresses is forgotten after some ten minutes, and the first one gets another chance.
_PREFERRED_S = 600.0
# gevent's look-ups share its pool of ten threads with all else that blocks.
_MOST_THREADS = 8

LookUp = Callable[[Address], list[Endpoint]]
"""Waits for the resolver. Raises ConnectFailed, OutOfDescriptors."""

log = logging.getLogger("prefork_lb")


class Name:
    """What is known of one name. Changed under the resolver's lock only."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.endpoints: list[Endpoint] = []  # as the resolver gave them last; empty: it never has
        self.failure: Failure | None = None  # of the last look-up
        self.fresh_until = 0.0
        self.asked_at: float | None = None  # when the look-up under way began; None: there is none
        self.is_told = False  # the log says that the resolver does not answer
        self.preferred: Endpoint | None = None
        self.preferred_until = 0.0
        self.waiters: list[Callable[[], None]] = []


class Resolver:
    """Remembers names, and the address of each that worked last. May be used from any thread."""

    def __init__(self, look_up: LookUp = look_up, clock: Clock = monotonic, most_threads: int = _MOST_THREADS) -> None:
        self._look_up = look_up
        self._clock = clock
        self._most_threads = most_threads
        self._lock = threading.Lock()
        self._names: dict[Address, Name] = {}
        self._asked: deque[Name] = deque()
        self._threads = 0

    def find(self, address: Address) -> Name:
        """What is known of a name. Begins a look-up when that is old, and waits for nothing."""
        now = self._clock()
        warning = ""
        needs_thread = False
        with self._lock:
            name = self._names.get(address)
            if name is None:
                name = self._names[address] = Name(address)
            if name.asked_at is None:
                if name.fresh_until <= now:
                    name.asked_at = now
                    self._asked.append(name)
                    needs_thread = self._threads < self._most_threads
                    self._threads += needs_thread
            elif name.endpoints and not name.is_told and now - name.asked_at > _FRESH_S:
                name.is_told = True
                warning = f"the resolver has not answered for {now - name.asked_at:.0f} s"
        if needs_thread:
            self._start_thread()
        if warning:
            _warn(name, warning)
        return name

    def wait_s(self, name: Name, left_s: float) -> float:
        """How long to wait for the look-up under way before connecting; `left_s` is the time that there is, in seconds."""
        asked_at = name.asked_at
        if asked_at is None:
            return 0.0
        return left_s if not name.endpoints else min(left_s, max(0.0, asked_at + _PATIENCE_S - self._clock()))

    def on_answer(self, name: Name, waiter: Callable[[], None]) -> None:
        """Call `waiter` when the look-up under way has ended, in its thread; at once when none is under way."""
        with self._lock:
            if name.asked_at is not None:
                name.waiters.append(waiter)
                return
        waiter()

    def forget(self, name: Name, waiter: Callable[[], None]) -> None:
        """Do not call `waiter` any more."""
        with self._lock:
            if waiter in name.waiters:
                name.waiters.remove(waiter)

    def require(self, name: Name, timeout_s: float) -> None:
        """See that an address of the name is known; `timeout_s` is the time that there was for the look-up, in seconds.

        Raises ConnectFailed, OutOfDescriptors, and ConnectTimeout while a look-up is under way.
        """
        with self._lock:
            endpoints, failure = name.endpoints, name.failure
        if endpoints:
            return
        if failure is None:
            raise ConnectTimeout(f"{name.address}: the resolver did not answer within {timeout_s:.3g} s")
        raise type(failure)(*failure.args)  # not itself: several may raise it at a time

    def so_far(self, name: Name) -> tuple[list[Endpoint], bool]:
        """The known addresses in the order in which to try them, and whether a look-up is under way that may give others."""
        with self._lock:
            if name.preferred is not None and self._clock() >= name.preferred_until:
                name.preferred = None
            return in_order(name.endpoints, name.preferred), name.asked_at is not None

    def note_worked(self, name: Name, endpoint: Endpoint) -> None:
        """A connection to this address was made. When it is not the one that the resolver would have first, it is from now on."""
        if endpoint == name.preferred:
            return
        with self._lock:
            is_first = endpoint == name.endpoints[0]  # a resolver that turns its answers round is let do so
            name.preferred = None if is_first else endpoint
            name.preferred_until = self._clock() + _PREFERRED_S

    def _start_thread(self) -> None:
        # Not under the lock: `start` waits for the thread, which is a greenlet under gevent, while the lock may be one that was
        # made before gevent replaced them, and then stops all greenlets.
        try:
            threading.Thread(target=self._work, name="prefork_lb look-up", daemon=True).start()
        except RuntimeError:  # the system has no more
            with self._lock:
                self._threads -= 1
                left = [] if self._threads else list(self._asked)
                if left:
                    self._asked.clear()
            for name in left:
                self._answered(name, [], OutOfDescriptors(f"{name.address}: no thread to look the name up"))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._asked:
                    self._threads -= 1
                    return
                name = self._asked.popleft()
            endpoints: list[Endpoint] = []
            failure: Failure | None = None
            try:
                endpoints = self._look_up(name.address)
            except (ConnectFailed, OutOfDescriptors) as exc:
                failure = exc
            except Exception as exc:
                log.exception("a look-up failed in a way that it must not")
                failure = ConnectFailed(f"{name.address}: the name does not resolve: {exc}")
            self._answered(name, endpoints, failure)

    def _answered(self, name: Name, endpoints: list[Endpoint], failure: Failure | None) -> None:
        with self._lock:
            name.asked_at = None
            name.failure = failure
            if endpoints:
                name.endpoints = endpoints
            # A name without an address is asked for again at once: whoever wants it waits anyway.
            name.fresh_until = self._clock() + _FRESH_S if name.endpoints else 0.0
            was_told, name.is_told = name.is_told, failure is not None and bool(name.endpoints)
            is_told = name.is_told
            waiters, name.waiters = name.waiters, []
        for waiter in waiters:
            try:
                waiter()
            except Exception:
                log.exception("an answer for %s could not be told", name.address)
        if is_told and not was_told:
            _warn(name, str(failure).removeprefix(f"{name.address}: "))
        elif was_told and not is_told:
            log.info("%s: the name resolves again", name.address)


def _warn(name: Name, what: str) -> None:
    log.warning("%s: %s; the addresses that it had stay in use", name.address, what)
