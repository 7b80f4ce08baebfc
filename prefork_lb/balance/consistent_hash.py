"""Consistent hash with bounded load: the same server for the same key, unless it has more than its share to do."""
from __future__ import annotations

from collections.abc import Iterator

from prefork_lb.balance.hashed import Hash
from prefork_lb.balance.keyed import Loads, first_that_can
from prefork_lb.balance.policy import Candidate, PolicySetup


class ConsistentHash(Hash):
    """As `hash`, but no server gets a request that would make it have more than `load_factor` times its share in flight.

    Such a key goes to the next server of its order that is below. Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing
    with Bounded Loads" (2016); the caps are HAProxy's (`hash-balance-factor`): whole numbers, whose sum is `load_factor` times
    what is in flight with this request. So there is always a server below its cap, unless full and tried ones are left out.
    """

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        self._percent = round(setup.options.load_factor * 100)

    def choose(self, order: Iterator[Candidate], loads: Loads) -> Candidate | None:
        if not self._percent:
            return first_that_can(order, loads)
        slots, caps = 0, None
        least: Candidate | None = None
        for server in order:
            if not loads.can_take(server):
                continue
            in_flight = server.in_flight
            if not in_flight:
                return server  # a cap is 1 at least
            if caps is None:
                slots, caps = self._slots(loads.total()), loads.caps()
            if caps.has_room(server, slots):
                return server
            if least is None or in_flight * least.weight < least.in_flight * server.weight:
                least = server
        return least

    def _slots(self, in_flight: int) -> int:
        """What all servers together may have in flight."""
        return ((in_flight + 1) * self._percent + 99) // 100
