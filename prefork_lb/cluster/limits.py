"""Limits of servers (`max_connections`) over all balancers: each uses a part, and the store grants it."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefork_lb.clock import Clock
from prefork_lb.cluster.parts import divide, part_alone, rounded_need
from prefork_lb.cluster.report import Key
from prefork_lb.cluster.server_list import Counts, Servers
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.table_lookup import server_at

_PEAK_S = 1.0  # a need is the greatest of this time: parts must not change with every request
_AGAIN_S = 2.0  # a part is confirmed after so long: the store may have lost it


class SharedLimits:
    """This balancer's parts."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, counts: Counts, clock: Clock) -> None:
        self._segment = segment
        self._ledger = ledger
        self._states = states
        self._counts = counts
        self._clock = clock
        self._peaks: dict[Key, tuple[int, float]] = {}  # by server the need, and when it was last that high
        self._asked: dict[Key, float] = {}  # when the store last granted a part

    def needs(self, servers: Servers, in_flight: Sequence[int], balancers: int) -> list[int]:
        """What this balancer needs of each server's limit; 0 where there is none."""
        now, waiting, found = self._clock(), self._counts.waiting(), []
        peaks: dict[Key, tuple[int, float]] = {}
        for pool, place in servers.by_pool():
            queued = -(-waiting.get(pool, 0) // (place.stop - place.start))
            limits = self._counts.limits(servers.slots[place])
            for key, limit, count in zip(servers.keys[place], limits, in_flight[place], strict=True):
                if not limit:
                    found.append(0)
                    continue
                need = rounded_need(count + queued, limit, balancers)
                peak, at = self._peaks.get(key, (0, now))
                peaks[key] = (need, now) if need >= peak or now - at > _PEAK_S else (peak, at)
                found.append(peaks[key][0])
        self._peaks = peaks
        self._asked = {key: at for key, at in self._asked.items() if key in peaks}
        return found

    def wanted(self, servers: Servers, in_flight: Sequence[int], needs: Sequence[Mapping[Key, int]],
               place: int) -> dict[Key, tuple[int, int]]:
        """The limits, and the parts of them to ask the store for. `needs` are those of all balancers, in their order; `place` is
        this one's among them."""
        now, found = self._clock(), {}
        for key, slot, count in zip(servers.keys, servers.slots, in_flight, strict=True):
            limit = self._counts.limit(slot)
            if not limit:
                continue
            part = divide(limit, [need.get(key, 0) for need in needs])[place]
            # What is in flight stays this balancer's until it is over: nobody else may count on it.
            part = max(part, min(count, limit))
            if part != self._states.slots(slot) or now - self._asked.get(key, -_AGAIN_S) >= _AGAIN_S:
                found[key] = limit, part
        return found

    def take(self, servers: Servers, granted: Mapping[Key, int], balancers: int, place: int) -> None:
        """The store has granted these parts."""
        now, states, slots = self._clock(), self._states, servers.slot_of
        for key, part in granted.items():
            self._asked[key] = now
            if limit := self._counts.limit(slots[key]):
                with self._ledger.locked():
                    if server_at(self._segment, slots[key]) == key:  # else it has gone since `servers` was read
                        states.set_slots(slots[key], part, part_alone(limit, balancers, place))
        for slot in slots.values():
            if states.slots(slot) is not None and not self._counts.limit(slot):
                with self._ledger.locked():
                    states.set_slots(slot, None, None)  # an operator has lifted the limit
