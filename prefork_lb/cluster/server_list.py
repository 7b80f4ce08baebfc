"""The servers that this balancer has, in the order in which reports count them."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from prefork_lb.cluster.report import Key, digest, encode_keys
from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.text import read_text
from prefork_lb.shared.transitions import Check


class Servers(NamedTuple):
    """All of them at one moment, sorted by pool and address."""

    keys: list[Key]
    slots: list[int]
    table: bytes  # the keys as the store keeps them
    digest: bytes

    @property
    def slot_of(self) -> dict[Key, int]:
        return dict(zip(self.keys, self.slots, strict=True))

    def by_pool(self) -> Iterator[tuple[str, slice]]:
        """The pools, and where the servers of each are."""
        start = 0
        for pool, keys in groupby(self.keys, key=lambda key: key[0]):
            end = start + sum(1 for _ in keys)
            yield pool, slice(start, end)
            start = end


class ServerList:
    """Reads the table again when it has changed."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._seen: tuple[int, int] | None = None
        self._servers = Servers([], [], b"", b"")

    def read(self) -> Servers:
        """The servers that pools have now."""
        cells = self._segment.cells
        seen = int(cells[at.H_GENERATION]), int(cells[at.H_MEMBERS])
        if seen != self._seen:
            found = sorted(slots_by_key(self._segment).items())
            keys = [key for key, _ in found]
            table = encode_keys(keys)
            self._servers = Servers(keys, [slot for _, slot in found], table, digest(table))
            self._seen = seen
        return self._servers


class Counts:
    """What is in flight at servers, their weights and limits, as they are at this moment."""

    def __init__(self, segment: Segment, states: States) -> None:
        layout, cells = segment.layout, segment.cells
        self._segment = segment
        self._states = states
        self._totals, self._weights = cells[layout.column(at.C_TOTAL)], cells[layout.column(at.C_WEIGHT)]
        self._limits, self._backups = cells[layout.column(at.C_MAX_CONNECTIONS)], cells[layout.column(at.C_BACKUP)]

    def in_flight(self, slots: Sequence[int]) -> list[int]:
        """Of this balancer."""
        totals = self._totals.tolist()
        return [max(0, totals[slot]) for slot in slots]

    def weights(self, slots: Sequence[int]) -> list[int]:
        """0 for servers that get no ordinary requests now, and for backups."""
        states = self._states
        return [0 if self._backups[slot] or not states.is_usable(slot) else states.weight_set[slot] or self._weights[slot]
                for slot in slots]

    def limit(self, slot: int) -> int:
        """In force over all balancers; 0: none."""
        limit_set = self._states.limit_set(slot)
        return int(self._limits[slot]) if limit_set is None else limit_set

    def limits(self, slots: Sequence[int]) -> list[int]:
        """The same, of several."""
        return [self.limit(slot) for slot in slots]

    def has_checks(self, slots: Sequence[int]) -> bool:
        """Whether one of these servers is checked, here or elsewhere."""
        return any(self._states.check[slot] != Check.NONE for slot in slots)

    def waiting(self) -> Mapping[str, int]:
        """Requests in the queue of each pool that has some."""
        cells, layout, found = self._segment.cells, self._segment.layout, {}
        for number in range(layout.pools):
            block = layout.pool(number)
            if cells[block + at.P_USED] and cells[block + at.P_WAITING]:
                found[read_text(self._segment.text, layout.pool_key_byte(number))] = int(cells[block + at.P_WAITING])
        return found

