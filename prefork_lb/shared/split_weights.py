"""Weights of splits that operators have set, by route and pool, in shared memory for all workers.

A route is known by a number that its conditions make (`config.routes`), so its weights outlast reloads, upgrades and, by the
state file, restarts. A weight that nobody has set is the configuration's. The table holds set weights alone.

Everything happens under the ledger's lock. Each change is counted: a worker compares the count at a pick, and reads its weights
again when the count has changed. An entry's route is written last, so a killed writer leaves an entry of no route. The count is
written last of a change, so workers see the whole change.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from prefork_lb.errors import Refused
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment

MOST_SPLIT_WEIGHT = 1_000_000

_ENTRIES = range(at.SPLIT_WEIGHTS_START, at.TABLE_START, at.SPLIT_WEIGHT_CELLS)

SetWeights = dict[int, dict[str, int]]
"""By route the weights that were set, by pool."""


@dataclass(frozen=True, slots=True)
class ConfiguredSplit:
    """The split of a route as the configuration has it."""

    route: int  # the number that the route's conditions make
    place: int  # of the route in the configuration, from 1
    asks: str  # what the route asks for, in words
    cookie: str  # empty: clients do not stay with their pool
    weights: Mapping[str, int]  # by pool

    @property
    def id(self) -> str:
        return id_of(self.route)


@dataclass(frozen=True, slots=True)
class SplitView:
    """A split as it is at a moment."""

    split: ConfiguredSplit
    weights: Mapping[str, int]  # in force

    @property
    def version(self) -> str:
        """Stands for the weights."""
        return version_of(self.weights)


class RouteWeights:
    """A worker's hand on the weights of one route."""

    def __init__(self, segment: Segment, ledger: Ledger, route: int) -> None:
        self.changes: memoryview = segment.cells[at.H_SPLITS:at.H_SPLITS + 1]
        """One cell: how often weights were set, of any route."""
        self._segment, self._ledger, self._route = segment, ledger, route

    def in_force(self, configured: Mapping[str, int]) -> Mapping[str, int]:
        """The weights at this moment. Takes the lock."""
        with self._ledger.locked():
            return weights_in_force(configured, set_weights(self._segment).get(self._route, {}))


def weights_in_force(configured: Mapping[str, int], set_ones: Mapping[str, int]) -> dict[str, int]:
    """The weights of a split by pool. Set ones of pools that it no longer has count for nothing.

    When those that were set leave no pool with weight, which only a reload can bring about, the configuration's are in force.
    """
    found = {pool: set_ones.get(pool, weight) for pool, weight in configured.items()}
    return found if any(found.values()) else dict(configured)


def id_of(route: int) -> str:
    """A route's number as text."""
    return f"{route:016x}"


def version_of(weights: Mapping[str, int]) -> str:
    """Stands for the weights of a split."""
    return "-".join(map(str, weights.values()))


def set_weights(segment: Segment) -> SetWeights:
    """All weights that are set. Whole under the lock; without it a change that goes on may be half seen."""
    found: SetWeights = {}
    for start in _ENTRIES:
        if route := segment.cells[start + at.W_ROUTE]:
            found.setdefault(route, {})[_pool(segment, start)] = segment.cells[start + at.W_WEIGHT]
    return found


def write_set_weights(segment: Segment, route: int, weights: Mapping[str, int | None]) -> None:
    """Set these weights of a route; None: that of the configuration. The lock must be held.

    Raises Refused, with nothing changed, when there is no room.
    """
    cells = segment.cells
    places = {(cells[start + at.W_ROUTE], _pool(segment, start)): start for start in _ENTRIES if cells[start + at.W_ROUTE]}
    free = [start for start in _ENTRIES if not cells[start + at.W_ROUTE]]
    if sum(weight is not None and (route, pool) not in places for pool, weight in weights.items()) > len(free):
        raise Refused(f"there is room for {at.SPLIT_WEIGHTS} weights that are set; let some be those of the configuration")
    for pool, weight in weights.items():
        place = places.get((route, pool))
        if weight is None:
            if place is not None:
                cells[place + at.W_ROUTE] = 0
        elif place is not None:
            cells[place + at.W_WEIGHT] = weight
        else:
            place = free.pop()
            segment.text[_name(place)] = pool.encode().ljust(at.SPLIT_POOL_BYTES, b"\0")
            cells[place + at.W_WEIGHT] = weight
            cells[place + at.W_ROUTE] = route
    _count_change(segment)


def forget_other_routes(segment: Segment, routes: Collection[int]) -> None:
    """Forget what was set of routes other than these: the configuration in force has no split there. The lock must be held."""
    cells = segment.cells
    others = [start for start in _ENTRIES if cells[start + at.W_ROUTE] and cells[start + at.W_ROUTE] not in routes]
    for start in others:
        cells[start + at.W_ROUTE] = 0
    if others:
        _count_change(segment)


def _count_change(segment: Segment) -> None:
    segment.cells[at.H_SPLITS] += 1
    segment.cells[at.H_CHANGES] += 1  # by which the state file is written


def _name(start: int) -> slice:
    first = (start + at.W_POOL) * at.CELL
    return slice(first, first + at.SPLIT_POOL_BYTES)


def _pool(segment: Segment, start: int) -> str:
    return bytes(segment.text[_name(start)]).split(b"\0", 1)[0].decode(errors="replace")
