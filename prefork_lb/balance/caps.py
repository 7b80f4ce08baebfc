"""Bounded load: the most that a server may have in flight, as a multiple of its share."""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.balance.policy import Candidate


class Caps:
    """How much of a number of slots each server has, by weight; the whole slots that are left over go round evenly."""

    def __init__(self, servers: Sequence[Candidate]) -> None:
        self._before: dict[int, tuple[int, int]] = {}  # by slot: its weight, and the weights of the servers before it
        self._total = 0
        for server in sorted(servers, key=lambda server: server.name):
            self._before[server.slot] = server.weight, self._total
            self._total += server.weight

    def cap(self, server: Candidate, slots: int) -> int:
        """The most that this server, one of `servers`, may have in flight when it is given no other request."""
        weight, before = self._before[server.slot]
        each, left = divmod(slots, self._total)
        return weight * each + (before + weight) * left // self._total - before * left // self._total or 1
