"""A pool: the one filter of candidates, and the claim."""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.keys import KeyOf
from prefork_lb.balance.policy import Candidate, Policy, RequestInfo
from prefork_lb.errors import InvariantError, LimitReached, NoUsableServer, PoolFull, SessionRefused
from prefork_lb.native.loader import FastClaims
from prefork_lb.net.stream import Watched
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.transitions import Ejection
from prefork_lb.upstream.answering import now_us
from prefork_lb.upstream.availability import AvailabilityRules, UsableServers, choose_usable
from prefork_lb.upstream.in_flight_limit import InFlightLimit
from prefork_lb.upstream.keyed_loads import KeyedLoads
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.outcomes import Outcomes
from prefork_lb.upstream.queue import Queue
from prefork_lb.upstream.retries import RetryBudget, RetryRules
from prefork_lb.upstream.roster import Roster
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.own_server import OwnServer
from prefork_lb.upstream.sticky.session import Session, Sticky

log = logging.getLogger("prefork_lb")

MakeFastClaims = Callable[[Sequence[Server], int], FastClaims | None]
"""Makes the compiled picker for these servers with their weights and limits of this moment. It claims only while the count of
changes is the number given. None: there is no compiled picker."""

MakeSticky = Callable[[Sequence[Server]], Sticky | None]
"""Makes what keeps sessions with these servers; None: the pool has no sessions."""

_View = tuple[int, UsableServers, FastClaims | None, KeyedLoads | None]

_NOTHING_SEEN: Final[_View] = (-1, UsableServers((), ()), None, None)

_HEDGE_SHARE: Final = 0.95


class Pool:
    """A set of servers and the policy that picks among them."""

    def __init__(self, name: str, roster: Roster, policy: Policy, ledger: Ledger, states: States,
                 outcomes: Outcomes, rules: AvailabilityRules, retries: RetryRules, budget: RetryBudget,
                 make_fast_claims: MakeFastClaims, queue: Queue | None = None, limit: InFlightLimit | None = None,
                 note_panic: Callable[[bool], None] = lambda is_panic: None, key_of: KeyOf | None = None,
                 make_sticky: MakeSticky = lambda servers: None, redirect_status: int = 0, number: int = 0,
                 awaits_servers: bool = False) -> None:
        """`make_fast_claims` makes a compiled picker that is equivalent to `policy`; it is asked for servers that are no backups.
        `note_panic` is called when panic begins and ends. `key_of` finds the key of a request; None: the pool has none.
        `make_sticky` makes what keeps sessions with their servers. `redirect_status` is the status of answers that send the
        client to its server; 0: requests are passed on. `number` is the pool's in shared memory. `awaits_servers`: they come
        and go, so requests wait in the queue, if there is one, also while no server is usable."""
        self.name = name
        self.number = number
        self._roster = roster
        self.outcomes = outcomes
        self.retries = retries
        self.budget = budget
        self.policy = policy
        self._ledger = ledger
        self._states = states
        self._rules = rules
        self._make_fast_claims = make_fast_claims
        self.hedge_after_s = 0.0  # seconds until a second server is asked; 0: not known yet
        self._queue = queue
        self.usable = 0  # servers that a pick could choose from when this worker last looked, backups not counted
        self._awaits_servers = awaits_servers and queue is not None
        self._limit = limit
        self._note_panic = note_panic
        self.key_of = key_of
        self._make_sticky = make_sticky
        self.redirect_status = redirect_status
        self._keyed = policy if isinstance(policy, KeyedPolicy) else None
        self._changing = threading.Lock()
        self._key_weights: dict[int, int] = {}
        self._use(roster.servers)
        self._own_server = OwnServer(name, policy, ledger, states, outcomes, self.sticky.rules) if self.sticky else None
        # The count of changes that was seen, the choice made then, the compiled picker for that choice's primaries, and what a
        # policy that goes by keys looks at. Several threads read and replace them, so they are one tuple: a picker's index is
        # good for its own choice only.
        self._view = _NOTHING_SEEN

    def lease(self, request: RequestInfo, tried: Collection[Server], client: Watched | None = None,
              session: Session | None = None) -> Lease:
        """Claim a server for `request` that is not in `tried`.

        Pick and count happen under one lock: no other claim, of any worker, comes between. Backups are candidates only
        when no other server is. With a `client` the request may have to wait for a server in the pool's queue, if it has one.
        The server of a `session` is taken whenever it may be. Raises NoUsableServer when no server is left, PoolFull when those
        that are left are at their limit, SessionRefused when the session may have no other server than its own, QueueFull and
        QueueTimeout, and ClientGone when the client left the queue.
        """
        if self.key_of is not None:
            request.key = self.key_of(request)
        if self._queue is None or client is None:
            return self._lease_now(request, tried, session)
        deadline = 0.0
        while True:
            queue = self._queue_of(session)
            if not queue.length:  # else this request would overtake those that wait
                try:
                    return self._lease_now(request, tried, session)
                except LimitReached:
                    raise  # the pool's own limit refuses at once; the queue is for servers that are full
                except SessionRefused:
                    if queue is self._queue:
                        raise
                except PoolFull:
                    pass
            deadline = deadline or queue.deadline()
            if (lease := self._lease_in_turn(queue, deadline, request, client, session)) is not None:
                return lease

    def only_server(self, session: Session | None) -> Server | None:
        """The one server that a request of this session may have; None: it may have others."""
        if session is None or session.server is None or self._own_server is None or session.server not in self._roster.present:
            return None
        return None if self._own_server.may_move(session.server) else session.server

    def _queue_of(self, session: Session | None) -> Queue:
        """Where a request waits: in the line of the only server that it may have, if that has one, else in the pool's."""
        only = self.only_server(session)
        queue = self._queue if only is None or only.own_queue is None else only.own_queue
        assert queue is not None
        return queue

    def _lease_now(self, request: RequestInfo, tried: Collection[Server], session: Session | None) -> Lease:
        ledger, states = self._ledger, self._states
        while True:
            view = self._view
            seen, choice, fast_claims, _ = view
            if fast_claims is not None and not tried:
                own = session.server if session is not None else None
                begun_us = now_us() if self.outcomes.answering is not None else 0
                index = fast_claims.claim(begun_us) if own is None else self._claim_own(fast_claims, choice, own, begun_us)
                if index >= 0:
                    return Lease(choice.primaries[index], ledger, self.outcomes, seen, None, begun_us)
            if seen != states.changes:
                self._look_anew()
                continue
            order = self._order(request)
            ledger.acquire()
            try:
                # Once more, now under the lock: `drain --wait` changes the state under it, and then reads what is in flight. A
                # claim by the old state must not be counted after that.
                if states.changes == seen:
                    return self._claim(view, request, tried, order, session)
            except LimitReached:
                assert self._limit is not None
                self._limit.count_refusal()
                raise
            finally:
                ledger.release_lock()

    @staticmethod
    def _claim_own(fast_claims: FastClaims, choice: UsableServers, own: Server, begun_us: int) -> int:
        """The index of a session's server that the compiled picker has claimed; -1: it has not."""
        if own not in choice.primaries:
            return -1
        index = choice.primaries.index(own)
        return index if fast_claims.claim_at(index, begun_us) else -1

    def _order(self, request: RequestInfo) -> Iterator[Candidate] | None:
        """The servers for the request's key; None: the policy has no use for one, or there is none. Needs no lock."""
        return self._keyed.order(request.key) if self._keyed is not None and request.key else None

    def _claim(self, view: _View, request: RequestInfo, tried: Collection[Server], order: Iterator[Candidate] | None,
               session: Session | None) -> Lease:
        """Pick and count; the lock must be held."""
        if self._limit is not None and self._limit.is_reached():
            raise LimitReached(f"pool {self.name}: {self._limit.most} requests are in flight, which is breaker.in_flight")
        seen, choice, _, loads = view
        ledger = self._ledger
        has_own_server = session is not None and session.server is not None
        if has_own_server:
            assert session is not None and session.server is not None and self._own_server is not None
            if (lease := self._own_server.claim(session.server, seen, choice, tried)) is not None:
                return lease
            if session.server in self._roster.present:
                self._own_server.check_may_move(session.server)
        due = self._due_for_trial(choice, tried) if choice.trials else None
        if due is not None:
            # The claim first: a worker that is killed in between leaves a claim that its siblings give back, and the trial due.
            ledger.claim(due.slot)
            return Lease(due, ledger, self.outcomes, seen, self.outcomes.ejections.begin_trial(due))
        if order is not None and loads is not None and self._keyed is not None:
            found = loads.choose(self._keyed, order, tried)
            if found is not None:
                ledger.claim(found.slot)
                return Lease(found, ledger, self.outcomes, seen)
        candidates = self._candidates(choice.primaries, tried) or self._candidates(choice.backups, tried)
        if not candidates:
            raise self._none_left(choice, tried)
        picked: Candidate | None = None
        if has_own_server:
            assert session is not None and self.sticky is not None
            picked = self.sticky.replacement(session, candidates)
        picked = picked or self.policy.pick(candidates, request)
        if not isinstance(picked, Server) or picked not in candidates:
            raise InvariantError(f"pool {self.name}: the policy {self.policy!r} picked {picked!r}: no candidate")
        ledger.claim(picked.slot)
        return Lease(picked, ledger, self.outcomes, seen)

    def _lease_in_turn(self, queue: Queue, deadline: float, request: RequestInfo, client: Watched,
                       session: Session | None) -> Lease | None:
        """Wait in this queue for a server; None: the request belongs into another queue now."""
        place = queue.join(deadline)
        has_room = True
        try:
            while True:
                view = self._view
                if view[0] != self._states.changes:
                    view = self._look_anew()
                order = self._order(request)
                with self._ledger.locked():
                    is_new = view[0] != self._states.changes
                    if not is_new and self._queue_of(session) is not queue:
                        return None
                    is_turn = queue.is_turn(place)
                    if is_turn and not is_new:
                        try:
                            lease = self._claim(view, request, (), order, session)
                            has_room = self._has_room(view[1])
                            return lease
                        except PoolFull:
                            pass
                        except SessionRefused:
                            if queue is self._queue:
                                raise
                if is_new:
                    continue
                if not is_turn:
                    queue.wake()  # the ring came to this request, so the first in line may have missed it
                place.wait(client)
        finally:
            request.queue_s += queue.leave(place)
            if has_room:
                self._wake_next(queue)

    def _wake_next(self, queue: Queue) -> None:
        """A request has left this queue, and a server may be free."""
        assert self._queue is not None
        (queue if queue.length else self._queue).wake()

    @property
    def seen_members(self) -> int:
        """The changes of membership (`H_MEMBERS`) that this pool has taken into account."""
        return self._roster.seen

    @property
    def has_failed(self) -> bool:
        """Whether a pick could only choose among servers that have failed."""
        view = self._view if self._view[0] == self._states.changes else self._look_anew()
        return view[1].has_failed

    @property
    def choice(self) -> UsableServers:
        """The servers that a pick may choose from at this moment, whether they are full or not."""
        return self._look_anew()[1]

    def tick(self) -> None:
        """Close idle connections that are too old, end penalties, let weights grow. To be called a few times a second."""
        if not self._roster.is_current:
            self._look_anew()
        self._roster.tick()
        self.outcomes.tick()
        if self.retries.hedge:
            self.hedge_after_s = self.outcomes.times.percentile(_HEDGE_SHARE)
        if self._queue is not None:
            self._queue.tick()
        if self._view[1].is_ramping:
            self._look_anew()

    def close(self) -> None:
        """Close all idle connections."""
        self._view = _NOTHING_SEEN  # a picker holds buffers of the shared memory
        self._roster.close()
        if self._queue is not None:
            self._queue.close()

    def _look_anew(self) -> _View:
        # The number first: a change that comes while we look is looked at again.
        changes = self._states.changes
        was_panic = self._view[1].is_panic
        with self._changing:  # so that the thread that comes last has the newest servers and weights
            if not self._roster.is_current:
                self._roster.look()
                self._use(self._roster.servers)
            self._divide_keys()
        choice = choose_usable(self.servers, self._states, self._rules, now_ms())
        # The compiled picker knows no trials, so it is not used while one is due.
        fast_claims = self._make_fast_claims(choice.primaries, changes) if choice.primaries and not choice.trials else None
        loads = None
        if self._keyed is not None:
            loads = KeyedLoads(choice.primaries, self._ledger) if choice.primaries and not self._has_own_queues else None
        view = self._view = changes, choice, fast_claims, loads
        self.usable = len(choice.primaries)
        if choice.is_panic != was_panic:
            self._note_panic(choice.is_panic)
            log.warning("pool %s: %s", self.name, "panic: too few servers are up by their checks; all are used" if choice.is_panic
                        else "no panic any more: only servers that are up are used")
        return view

    def _divide_keys(self) -> None:
        """Let keys follow the weights that operators set."""
        keyed = [policy for policy in (self._keyed, self.sticky.keyed if self.sticky is not None else None) if policy is not None]
        if not keyed:
            return
        weights = {server.slot: self._states.weight_set[server.slot] or server.configured_weight for server in self.servers}
        if weights != self._key_weights:
            for policy in keyed:
                policy.divide(self.servers, weights)
            self._key_weights = weights

    def _use(self, servers: tuple[Server, ...]) -> None:
        """Have these servers from now on."""
        for server in servers:
            server.queue = self._queue
        self.servers = servers
        self._has_own_queues = any(server.own_queue is not None for server in servers)
        slots = [server.slot for server in servers]
        self.budget.use(slots)
        if self._limit is not None:
            self._limit.use(slots)
        self.outcomes.use(servers)
        self.sticky = self._make_sticky(servers)
        self._key_weights = {}  # which no pool has: the keys are divided anew

    def _due_for_trial(self, choice: UsableServers, tried: Collection[Server]) -> Server | None:
        """An ejected server whose time is over and that has room for a request, if there is one. The lock must be held."""
        states, totals = self._states, self._ledger.totals
        for server in choice.trials:
            # Looked at again, under the lock: another worker's request may be its trial by now.
            if (states.ejection[server.slot] == Ejection.TRIAL_DUE and totals[server.slot] < server.max_connections
                    and server not in tried):
                return server
        return None

    def _candidates(self, servers: Sequence[Server], tried: Collection[Server]) -> Sequence[Server]:
        totals, penalties = self._ledger.totals, self._ledger.penalties
        if self._has_own_queues:  # what becomes free there is for the sessions that wait
            servers = [server for server in servers if server.own_queue is None or not server.own_queue.is_answered]
        all_can = not tried
        for server in servers:
            in_flight = totals[server.slot]
            server.in_flight = in_flight + penalties[server.slot]
            if in_flight >= server.max_connections:
                all_can = False
        if all_can:
            return servers
        return [server for server in servers if totals[server.slot] < server.max_connections and server not in tried]

    def _has_room(self, choice: UsableServers) -> bool:
        """Whether one more request may find a server; the lock must be held."""
        totals = self._ledger.totals
        return bool(any(totals[server.slot] < server.own_limit for server in (*choice.primaries, *choice.backups))
                    or (choice.trials and self._due_for_trial(choice, ())))

    def _none_left(self, choice: UsableServers, tried: Collection[Server]) -> PoolFull | NoUsableServer:
        left = [server for server in (*choice.primaries, *choice.backups) if server not in tried]
        if left:
            return PoolFull(f"pool {self.name}: every server is at its max_connections")
        if self._awaits_servers and not tried:
            return PoolFull(f"pool {self.name}: there is no usable server yet")
        return NoUsableServer(f"pool {self.name}: no server is left to try")
