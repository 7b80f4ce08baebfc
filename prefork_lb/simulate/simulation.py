"""One run: servers, a policy, and a heap of the moments at which something happens. Seeded and exact.

It stands in for `upstream.Pool`: it keeps the servers that are not full (backups only when no other is left), asks the policy,
counts the claim, and tells the policy of the end (`answered`). Ejection is that of `simulate.ejection`. Health checks and retries
are left out: what is compared is the policy.
"""
from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefork_lb.balance.policy import Policy
from prefork_lb.simulate.ejection import EjectionModel, SimulatedEjections
from prefork_lb.simulate.servers import UNLIMITED, DescribedServer, Trouble
from prefork_lb.wire.head import Index


@dataclass(slots=True)
class AnyRequest:
    """A request as policies see it."""

    method: bytes = b"GET"
    target: bytes = b"/"
    client: str = "192.0.2.1"
    index: Index = field(default_factory=dict)
    key: bytes = b""
    queue_s: float = 0.0


@dataclass(slots=True, eq=False)
class SimulatedServer:
    """A server while the simulation runs; to a policy, the `Candidate`."""

    slot: int
    name: str
    weight: int = 1
    configured_weight: int = 1
    backup: bool = False
    in_flight: int = 0  # what the policy sees: claims, and failures of a short while ago
    claims: int = 0
    limit: int = UNLIMITED  # of requests in flight
    workers: int = UNLIMITED  # requests that it works on at once
    busy: int = 0  # requests that it works on
    waiting: deque[tuple[float, float, float]] = field(default_factory=deque)  # claimed, not begun: arrived, claimed, service_s
    trouble: Trouble | None = None
    picks: int = 0
    streak: int = 0  # failures in a row
    ejections: int = 0
    out_until: float = 0.0
    trial: float = 0.0


_PENALTY_ENDS = object()


def simulated(models: Sequence[DescribedServer]) -> list[SimulatedServer]:
    """Idle servers by their models, in slots 0, 1, 2, ..."""
    return [SimulatedServer(slot, model.name, model.weight, model.weight, model.backup, limit=model.max_connections or UNLIMITED,
                            workers=model.workers or UNLIMITED) for slot, model in enumerate(models)]


class Simulation:
    """A pool on virtual time. Every figure is from its beginning, or from the last `begin_counting` on."""

    def __init__(self, servers: Sequence[SimulatedServer], make_policy: Callable[[Callable[[], float]], Policy],
                 troubles: Sequence[Trouble] = (), queue_size: int = 0, queue_timeout_s: float = 0.0,
                 ejection: EjectionModel | None = None) -> None:
        """`make_policy` makes the policy from a clock: seconds of virtual time. While all servers are at their limit `queue_size`
        requests may wait."""
        self.servers = list(servers)
        self.now = 0.0
        self.policy = make_policy(lambda: self.now)
        self.request = AnyRequest()  # the one that is picked for
        self._answered: Callable[[Any, float, bool], None] | None = getattr(self.policy, "answered", None)
        self._sent: Callable[[Any], None] | None = getattr(self.policy, "sent", None)
        self._primaries = [server for server in self.servers if not server.backup]
        self._backups = [server for server in self.servers if server.backup]
        self._has_limits = any(server.limit < UNLIMITED for server in self.servers)
        self._queue: deque[tuple[float, float]] = deque()  # arrived, service_s
        self._queue_size, self._queue_timeout_s = queue_size, queue_timeout_s
        self._ejections = SimulatedEjections(ejection, self.servers) if ejection is not None else None
        self._penalty_s = ejection.penalty_s if ejection is not None else 0.0
        # when, number, server, arrived, claimed, whether it failed; for a change of a server: when, number, server, trouble, or
        # that a penalty ends
        self._events: list[tuple[Any, ...]] = []
        self._number = 0
        self._loads = [0.0] * len(self._primaries)  # requests in flight for each unit of weight
        self._spread = 0.0
        for trouble in troubles:
            server = next(each for each in self.servers if each.name == trouble.server)
            for when, state in (trouble.begin_s, trouble), (trouble.end_s, None):
                if when < float("inf"):
                    self._number += 1
                    heapq.heappush(self._events, (when, self._number - (1 << 60), server, state))
        self.begin_counting()

    def begin_counting(self) -> None:
        """Forget the figures of until now."""
        self.latencies = array("d")  # seconds from a request's arrival to its answer, for those that were answered well
        self.failed = self.refused = 0
        self.most_in_flight = self.longest_queue = self.most_waiting = 0
        self.counted_s = self.spread_s = self.peak_s = 0.0  # time; time times spread; time times the highest load
        for server in self.servers:
            server.picks = 0

    def claim(self, service_s: float, candidates: Sequence[SimulatedServer] | None = None) -> SimulatedServer | None:
        """One request that comes now and takes a server `service_s` seconds. Returns its server; None: it waits or is refused."""
        if candidates is None and self._queue:
            picked = None
        else:
            candidates = self._with_room() if candidates is None else candidates
            picked = self._take(candidates, self.now, service_s) if candidates else None
        if picked is None:
            self._wait(service_s)
        return picked

    @property
    def waiting(self) -> int:
        """Requests that wait while all servers are at their limit."""
        return len(self._queue)

    def advance(self, to: float) -> None:
        """Let time pass."""
        events, pop, finish = self._events, heapq.heappop, self._finish
        while events and events[0][0] <= to:
            event = pop(events)
            self._pass(event[0])
            if len(event) == 4:
                if event[3] is _PENALTY_ENDS:
                    event[2].in_flight -= 1
                else:
                    event[2].trouble = event[3]
            else:
                finish(event[2], event[3], event[4], event[5])
        self._pass(to)

    def drain(self) -> None:
        """Let everything end."""
        while self._events:
            self.advance(self._events[0][0])
        self._refuse_overdue(float("inf"))

    def _with_room(self) -> Sequence[SimulatedServer]:
        is_out = self._ejections is not None and self._ejections.out
        if not self._has_limits and not is_out:
            return self._primaries
        return ([server for server in self._primaries if server.claims < server.limit and not server.out_until]
                or [server for server in self._backups if server.claims < server.limit and not server.out_until])

    def _due(self) -> SimulatedServer | None:
        """An ejected server whose trial this request is; it is noted as that."""
        ejections = self._ejections
        if ejections is None or not ejections.out:
            return None
        server = ejections.due(self.now)
        if not isinstance(server, SimulatedServer) or server.claims >= server.limit:
            return None
        server.trial = self.now
        return server

    def _take(self, candidates: Sequence[SimulatedServer], arrived: float, service_s: float) -> SimulatedServer:
        server = self._due() or self.policy.pick(candidates, self.request)
        if not isinstance(server, SimulatedServer):
            raise ValueError(f"the policy {self.policy!r} picked {server!r}, which is no candidate")
        server.picks += 1
        server.in_flight += 1
        server.claims = in_flight = server.claims + 1
        if in_flight > self.most_in_flight:
            self.most_in_flight = in_flight
        self._note_load(server)
        if self._sent is not None:
            self._sent(server)
        if server.busy < server.workers:
            server.busy += 1
            self._begin(server, arrived, self.now, service_s)
        else:
            server.waiting.append((arrived, self.now, service_s))
            if len(server.waiting) > self.longest_queue:
                self.longest_queue = len(server.waiting)
        return server

    def _begin(self, server: SimulatedServer, arrived: float, claimed: float, service_s: float) -> None:
        trouble, failed, now = server.trouble, False, self.now
        if trouble is not None:
            if trouble.fails_in_s is not None:
                failed, service_s = True, trouble.fails_in_s
            elif trouble.stalls:
                now = trouble.end_s
            else:
                service_s *= trouble.factor
        self._number = number = self._number + 1
        heapq.heappush(self._events, (now + service_s, number, server, arrived, claimed, failed))

    def _finish(self, server: SimulatedServer, arrived: float, claimed: float, failed: bool) -> None:
        now = self.now
        server.in_flight -= 1
        server.claims -= 1
        self._note_load(server)
        if self._ejections is not None and (failed or server.streak or server.out_until):
            self._ejections.judge(server, claimed, failed, now)
        if failed:
            self.failed += 1
            if self._penalty_s:
                server.in_flight += 1
                self._number += 1
                heapq.heappush(self._events, (now + self._penalty_s, self._number, server, _PENALTY_ENDS))
        else:
            self.latencies.append(now - arrived)
        if self._answered is not None:
            self._answered(server, now - claimed, failed)
        if server.waiting:
            self._begin(server, *server.waiting.popleft())
        else:
            server.busy -= 1
        if self._queue:
            self._serve_queue()

    def _note_load(self, server: SimulatedServer) -> None:
        if not server.backup:
            loads = self._loads
            loads[self._primaries.index(server) if self._backups else server.slot] = server.claims / server.weight
            self._spread = max(loads) - min(loads)

    def _pass(self, to: float) -> None:
        seconds = to - self.now
        if seconds > 0:
            self.counted_s += seconds
            self.spread_s += seconds * self._spread
            self.peak_s += seconds * max(self._loads)
            self.now = to

    def _wait(self, service_s: float) -> None:
        self._refuse_overdue(self.now)
        if len(self._queue) >= self._queue_size:
            self.refused += 1
            return
        self._queue.append((self.now, service_s))
        self.most_waiting = max(self.most_waiting, len(self._queue))

    def _serve_queue(self) -> None:
        self._refuse_overdue(self.now)
        while self._queue and (candidates := self._with_room()):
            self._take(candidates, *self._queue.popleft())

    def _refuse_overdue(self, now: float) -> None:
        queue = self._queue
        while queue and queue[0][0] + self._queue_timeout_s < now:
            queue.popleft()
            self.refused += 1
