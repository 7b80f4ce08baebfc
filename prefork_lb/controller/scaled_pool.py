"""A pool as scaling sees it: the servers in it that scaling has added."""
from __future__ import annotations

import contextlib
from collections.abc import Mapping

from prefork_lb.errors import NotThere
from prefork_lb.scaling.fleet_pool import PooledServer
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import AddedBy, Standing
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.transitions import Check

_WHO = "scaling"


class ScaledPool:
    """See `scaling.fleet_pool.FleetPool`."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, pool: str, max_connections: int = 0) -> None:
        """`max_connections` is the limit of each server; 0: none. It may be set later, for servers that come after that."""
        self.max_connections = max_connections
        self._segment = segment
        self._ledger = ledger
        self._states = states
        self._pool = pool
        self._steering = Steering(segment, ledger, states)
        self._slots: dict[str, int] = {}
        self._changes = -1

    def seen(self) -> Mapping[str, PooledServer]:
        states = self._states
        with self._ledger.locked():
            if states.changes != self._changes:  # else the servers are the same as before
                self._slots = {address: slot for (pool, address), slot in slots_by_key(self._segment).items()
                               if pool == self._pool and states.standing[slot] == Standing.ADDED
                               and states.source[slot] == AddedBy.SCALING}
                self._changes = states.changes
            return {address: self._look_at(slot) for address, slot in self._slots.items()}

    def _look_at(self, slot: int) -> PooledServer:
        states = self._states
        is_down = states.check[slot] == Check.DOWN and states.admin[slot] == Admin.READY
        return PooledServer(self._ledger.requests([slot]), bool(states.leaving[slot]), states.is_usable(slot), is_down)

    def add(self, address: str) -> None:
        self._steering.add_server(self._pool, address, max_connections=self.max_connections, who=_WHO, source=AddedBy.SCALING)

    def let_go(self, address: str) -> None:
        with contextlib.suppress(NotThere):
            self._steering.let_go(self._pool, address)

    def keep(self, address: str) -> None:
        self._steering.keep(self._pool, address)

    def remove(self, address: str) -> None:
        with contextlib.suppress(NotThere):
            self._steering.remove_server(self._pool, address, who=_WHO, source=AddedBy.SCALING)

    def tell(self, kind: EventKind, address: str, text: str) -> None:
        with self._ledger.locked():
            record_event(self._segment, kind, text, self._pool, address, _WHO)
