"""A pool that scales in real shared memory, with servers, checks and a clock that do what a test tells them."""
from __future__ import annotations

import json

from prefork_lb.config.model import Config
from prefork_lb.config.published import decode_published
from prefork_lb.controller.pool_scaler import PoolScaler
from prefork_lb.controller.scaled_pool import ScaledPool
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import EventKind, recent
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.scaling_state import Scaling, scaling_of
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, register
from prefork_lb.shared.table_lookup import slots_by_key
from tests.unit.scaling.staged import TICK_S, StagedDriver, StagedReadiness

SCALING = {"command": ["run", "{address}"], "max": 6, "target": 4}


def config_with(**pools: dict[str, object] | None) -> Config:
    """A configuration with these pools, each with the keys of its scaling that are not as in SCALING; None: it does not scale."""
    sections = {name: {"servers": []} | ({"scaling": SCALING | keys} if keys is not None else {}) for name, keys in pools.items()}
    return decode_published(json.dumps({"pools": sections}).encode())[0]


class Scene:
    """The pool app, its driver, and its scaler."""

    def __init__(self, segment: Segment, **scaling: object) -> None:
        self.segment, self.ledger, self.states = segment, Ledger(segment), States(segment)
        pools = [PoolEntry(name, [], may_be_empty=True) for name in ("web", "app")]
        self.number = register(segment, self.ledger, pools)["app"].number
        self.steering = Steering(segment, self.ledger, self.states)
        self.driver, self.readiness = StagedDriver(), StagedReadiness()
        self.clock, self.wall = self.driver.clock, 0.0
        self.config = config_with(app=dict(scaling))
        self.scaler = self.new_scaler()

    def new_scaler(self) -> PoolScaler:
        """One that knows nothing of before, as of a new controller."""
        pool = self.config.pools["app"]
        assert pool.scaling is not None
        self.place = ScaledPool(self.segment, self.ledger, self.states, "app", pool.scaling.max_connections)
        self.scaler = PoolScaler(self.segment, self.ledger, "app", pool, pool.scaling, self.driver, self.place, self.readiness,
                                 self.clock, lambda: self.wall)
        return self.scaler

    def use(self, **scaling: object) -> None:
        """Another configuration."""
        self.config = config_with(app=dict(scaling))
        pool = self.config.pools["app"]
        assert pool.scaling is not None
        self.scaler.use(pool, pool.scaling)

    def run(self, seconds: float, in_flight: int = 0, waiting: int = 0) -> None:
        """Let time pass, with so many requests in flight on the pool's servers, and so many that wait."""
        for _ in range(round(seconds / TICK_S)):
            self.clock.advance(TICK_S)
            self.load(in_flight, waiting)
            self.scaler.look()
            self.load(0, 0)
            for address, seen in self.place.seen().items():
                if seen.is_leaving:  # nothing is left on it
                    self.place.remove(address)

    def load(self, in_flight: int, waiting: int) -> None:
        layout = self.segment.layout
        slots = [slot for (pool, _), slot in slots_by_key(self.segment).items() if pool == "app"]
        for number, slot in enumerate(slots):
            self.ledger.totals[slot] = in_flight // len(slots) + (number < in_flight % len(slots))
        self.segment.cells[layout.pool(self.number) + at.P_WAITING] = waiting + (in_flight if not slots else 0)

    @property
    def servers(self) -> int:
        """In the pool."""
        return len(self.place.seen())

    @property
    def said(self) -> Scaling:
        found = scaling_of(self.segment, self.number)
        assert found is not None
        return found

    def told(self, kind: EventKind) -> list[str]:
        return [event.text for event in recent(self.segment) if event.kind == kind and event.pool == "app"]
