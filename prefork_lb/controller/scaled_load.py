"""The load of a pool that scales, read from shared memory without the lock."""
from __future__ import annotations

from collections.abc import Callable, Mapping

from prefork_lb.scaling.autoscaler import PoolLoad
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import AddedBy
from prefork_lb.shared.table_lookup import owner_of

CpuTimes = Callable[[], Mapping[int, float]]
"""The CPU time that each server has used so far, in seconds, by its number. Asked for about once a second: it takes a while."""


class ScaledLoad:
    """The load on the servers that scaling has started, of one pool. Those that leave count for as long as they have requests."""

    def __init__(self, segment: Segment, ledger: Ledger, pool: str) -> None:
        self._segment, self._ledger, self._pool = segment, ledger, pool
        self._slots: list[int] = []
        self._found_at = (-1, -1)  # the counts of changes of the table when the slots were found
        self._cpu = CpuRate()

    def read(self, number: int, now: float, cpu_s: CpuTimes) -> PoolLoad:
        """The load at this moment. `number` is the pool's in the server table."""
        cells, layout = self._segment.cells, self._segment.layout
        slots, start, own = self._own_slots(), layout.pool(number), layout.column(at.C_OWN_WAITING).start
        waiting = cells[start + at.P_WAITING] + sum(cells[own + slot] for slot in slots)
        return PoolLoad(sum(self._ledger.totals[slot] for slot in slots) + waiting, self._ledger.requests(slots),
                        self._cpu.cores(now, cpu_s), cells[start + at.P_QUEUED], cells[start + at.P_QUEUED_US] / 1e6)

    def _own_slots(self) -> list[int]:
        cells, layout = self._segment.cells, self._segment.layout
        changes = cells[at.H_GENERATION], cells[at.H_MEMBERS]
        if changes != self._found_at:
            sources = cells[layout.column(at.C_SOURCE)].tolist()
            self._slots = [slot for slot, source in enumerate(sources) if source == AddedBy.SCALING
                           and (owner := owner_of(self._segment, slot)) is not None and owner[0] == self._pool]
            self._found_at = changes
        return self._slots


class CpuRate:
    """Cores in use, from CPU time: over a second or more, since the kernel counts in hundredths of a second."""

    def __init__(self) -> None:
        self._before: Mapping[int, float] = {}
        self._since: float | None = None
        self._cores = 0.0

    def cores(self, now: float, cpu_s: CpuTimes) -> float:
        """The cores that were in use lately. A server that began since the last measurement counts from the next one on."""
        if self._since is None or now - self._since >= 1.0:
            times = cpu_s()
            if self._since is not None:
                used_s = sum(max(0.0, seconds - self._before[n]) for n, seconds in times.items() if n in self._before)
                self._cores = used_s / (now - self._since)
            self._before, self._since = times, now
        return self._cores
