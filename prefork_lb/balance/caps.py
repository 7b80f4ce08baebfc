"""Bounded load: the most that a server may have in flight, as a multiple of its share."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate


class Caps:
    """Divides a number of slots among servers by weight; the whole slots that are left over go round evenly."""

    def __init__(self, servers: Sequence[Candidate]) -> None:
        # By slot: the server's weight, and the weights of the servers before it. By name, so that all workers have one order.
        self._places: dict[int, tuple[int, int]] = {}
        self._total = 0
        for server in sorted(servers, key=lambda server: server.name):
            self._places[server.slot] = server.weight, self._total
            self._total += server.weight

    def has_room(self, server: Candidate, slots: int) -> bool:
        """Whether this server, one of `servers`, has less in flight than its part of the slots, which is 1 at least."""
        weight, before = self._places[server.slot]
        each, left = divmod(slots, self._total)
        more = server.in_flight - weight * each
        return more < 0 or more < (before + weight) * left // self._total - before * left // self._total or not server.in_flight
