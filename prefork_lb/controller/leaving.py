"""Removes servers that their source has let go, when nothing is left on them."""
from __future__ import annotations

from prefork_lb.config.model import Config
from prefork_lb.errors import SteeringError
from prefork_lb.observe.sessions import SessionCounter
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Changes
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.table import Source, Standing, key_of


class Leaving:
    """Of one instance. `look` is to be called a few times a second."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment, self._ledger, self._states = segment, ledger, states
        self._sessions = SessionCounter(segment, states)
        self._config: Config | None = None
        self._busy_ms: dict[int, int] = {}  # by slot: when a request was last seen on a server that is leaving

    def use(self, config: Config) -> None:
        """Go by the sessions of this configuration."""
        self._config = config

    def look(self) -> None:
        """Remove the servers that have nothing left."""
        leaving = [slot for slot, flag in enumerate(self._states.leaving.tolist()) if flag]
        self._busy_ms = {slot: when for slot, when in self._busy_ms.items() if slot in leaving}
        done = [slot for slot in leaving if self._is_done(slot)]
        if done:
            with self._ledger.locked():
                for slot in filter(self._is_idle, done):
                    self._remove(slot)

    def _is_done(self, slot: int) -> bool:
        """Whether neither requests nor sessions are left."""
        key = key_of(self._segment, slot)
        if key is None or not self._is_idle(slot):
            self._busy_ms[slot] = now_ms()
            return False
        return not self._sessions.of(self._config, *key, slot, self._busy_ms.get(slot, 0)).left

    def _is_idle(self, slot: int) -> bool:
        """Whether the server is leaving and no request is on it or waits for it. Certain only while the lock is held."""
        states, cells = self._states, self._segment.cells
        waiting = cells[self._segment.layout.column(at.C_OWN_WAITING).start + slot]
        # One that is ready was about to be let go, or taken back, when the process that did it was killed.
        return bool(states.leaving[slot] and states.standing[slot] == Standing.ADDED and states.admin[slot] != Admin.READY
                    and not self._ledger.totals[slot] and not waiting)

    def _remove(self, slot: int) -> None:
        key = key_of(self._segment, slot)
        if key is not None:
            source = Source(self._states.source[slot])
            try:
                Changes(self._segment, self._ledger, self._states, key[0]).remove(key[1], source.name.lower(), source)
            except SteeringError:  # the last one of a pool that a reload has given servers of its own, which are not there yet
                pass
