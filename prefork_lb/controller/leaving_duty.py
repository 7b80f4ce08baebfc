"""Removes servers that their source has let go, when they have neither requests nor sessions any more."""
from __future__ import annotations

import contextlib
from collections.abc import Sequence

from prefork_lb.config.model import Config
from prefork_lb.errors import Refused
from prefork_lb.observe.sessions import SessionCounter
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Changes
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.table import AddedBy, Standing
from prefork_lb.shared.table_lookup import server_at

_AT_ONCE = 32  # servers; all workers wait for the lock meanwhile


class LeavingDuty:
    """Of one instance. `look` is to be called a few times a second."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment, self._ledger, self._states = segment, ledger, states
        self._sessions = SessionCounter(segment, states)
        self._config: Config | None = None
        self._busy_ms: dict[int, int] = {}  # by slot: when a request was last seen on a server that is leaving

    def use(self, config: Config) -> None:
        """Take from this configuration which sessions pools keep."""
        self._config = config

    def look(self) -> None:
        """Remove the servers that have nothing left."""
        leaving = [slot for slot, flag in enumerate(self._states.leaving.tolist()) if flag]
        self._busy_ms = {slot: when for slot, when in self._busy_ms.items() if self._states.leaving[slot]}
        done: dict[str, list[int]] = {}
        for slot in leaving:
            key = server_at(self._segment, slot)
            if key is not None and self._is_done(slot, key):
                done.setdefault(key[0], []).append(slot)
        for pool, slots in done.items():
            for first in range(0, len(slots), _AT_ONCE):
                self._remove(pool, slots[first:first + _AT_ONCE])

    def _is_done(self, slot: int, key: tuple[str, str]) -> bool:
        """Whether neither requests nor sessions are left."""
        if not self._is_idle(slot):
            self._busy_ms[slot] = now_ms()
            return False
        return not self._sessions.of(self._config, *key, slot, self._busy_ms.get(slot, 0)).left

    def _is_idle(self, slot: int) -> bool:
        """Whether the server is leaving and no request is on it or waits for it. Certain only while the lock is held."""
        states, cells = self._states, self._segment.cells
        waiting = cells[self._segment.layout.column(at.C_OWN_WAITING).start + slot]
        # A leaving server that is ready: the process that let it go, or took it back, was killed in the middle.
        return bool(states.leaving[slot] and states.standing[slot] == Standing.ADDED and states.admin[slot] != Admin.READY
                    and not self._ledger.totals[slot] and not waiting)

    def _remove(self, pool: str, slots: Sequence[int]) -> None:
        with self._ledger.locked():
            changes = Changes(self._segment, self._ledger, self._states, pool)
            for slot in filter(self._is_idle, slots):
                key, source = server_at(self._segment, slot), AddedBy(self._states.source[slot])
                # Refused: the pool's last server. A reload has given the pool other ones, and no worker has entered them yet.
                with contextlib.suppress(Refused):
                    if key is not None and key[0] == pool:
                        changes.remove(key[1], source.name.lower(), source)
