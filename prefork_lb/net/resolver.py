"""Remembers the addresses of names, and looks names up in threads of its own.

Facts: getaddrinfo(3) waits as long as the system's configuration says (half a minute with three silent name servers), and no call
can end it earlier. It does not tell how long an answer stays valid. So look-ups run in daemon threads: one at a time for each
name, a few in all, and a process that ends does not wait for them. A dial meanwhile uses the addresses that are known.
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
from prefork_lb.net.name_lookup import Endpoint, look_up

# Short enough to follow a change, long enough that a busy pool does not ask for every connection.
_FRESH_S = 5.0
# With an older answer, a dial first waits this long for a new one: the old address may belong to another server by now.
# RFC 8305 8 waits as long for a second answer.
_PATIENCE_S = 0.05
# RFC 6555 4.2: results about addresses are forgotten after about ten minutes, and the first address gets another chance.
_PREFERRED_S = 600.0
# gevent's look-ups share its pool of ten threads with all other blocking calls.
_MOST_THREADS = 8

LookUp = Callable[[Address], list[Endpoint]]
"""Waits for the resolver. Raises ConnectFailed, OutOfDescriptors."""

log = logging.getLogger("prefork_lb")


class Name:
    """The known facts about one name. Changed only under the resolver's lock."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.endpoints: list[Endpoint] = []  # the resolver's last answer; empty: there was none
        self.failure: Failure | None = None  # of the last look-up
        self.fresh_until = 0.0
        self.asked_at: float | None = None  # when the look-up under way began; None: there is none
        self.is_told = False  # the log already says that the resolver does not answer, or fails
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
        """The known facts about a name. Begins a look-up when they are old; does not wait for it."""
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
        """How many seconds to wait for the look-up under way before connecting; `left_s` is the time left, in seconds."""
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
        """Raise an error unless an address of the name is known; `timeout_s` is how long the look-up could take, in seconds.

        Raises ConnectFailed, OutOfDescriptors, and ConnectTimeout while a look-up is under way.
        """
        with self._lock:
            endpoints, failure = name.endpoints, name.failure
        if endpoints:
            return
        if failure is None:
            raise ConnectTimeout(f"{name.address}: the resolver did not answer within {timeout_s:.3g} s")
        raise type(failure)(*failure.args)  # a copy: several threads may raise it at the same time

    def so_far(self, name: Name) -> tuple[list[Endpoint], bool]:
        """The known addresses in the order in which to try them, and whether a look-up under way may add others."""
        with self._lock:
            if name.preferred is not None and self._clock() >= name.preferred_until:
                name.preferred = None
            return in_order(name.endpoints, name.preferred), name.asked_at is not None

    def note_worked(self, name: Name, endpoint: Endpoint) -> None:
        """Note that a connection to this address was made. It is tried first from now on."""
        if endpoint == name.preferred:
            return
        with self._lock:
            is_first = endpoint == name.endpoints[0]  # no preference then: a resolver may rotate its answers
            name.preferred = None if is_first else endpoint
            name.preferred_until = self._clock() + _PREFERRED_S

    def _start_thread(self) -> None:
        # Not under the lock. `start` waits for the new thread; under gevent that is a greenlet. The lock may have been made
        # before gevent's patch; a greenlet that waits for such a lock stops all greenlets.
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
            # A name without an address is looked up again at once: a dial that needs it has to wait in any case.
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
