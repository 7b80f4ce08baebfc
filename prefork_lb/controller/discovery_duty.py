"""Adds and removes servers of pools so that they are those of the pool's list, `[pools.NAME.discovery]`."""
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from prefork_lb.clock import Clock, monotonic
from prefork_lb.config.discovery import DiscoveryConfig
from prefork_lb.config.model import Config
from prefork_lb.controller.duties import Duties
from prefork_lb.discovery.finder import Finder, Outcome
from prefork_lb.discovery.sources import make_source
from prefork_lb.shared import layout as at
from prefork_lb.shared.discovered import Discovered, DiscoveryState, discovered_of, write_discovered
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.following import Followed, follow_list
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.table import AddedBy
from prefork_lb.shared.table_lookup import pool_number, slots_by_key
from prefork_lb.shared.text import as_note

# At most one event of changes, and one of a failure, of a pool in so many seconds: the ring of events is for everybody.
_CHANGES_S, _FAILURES_S = 10.0, 60.0

log = logging.getLogger("prefork_lb")

MakeFinder = Callable[[str, DiscoveryConfig], Finder]


def new_finder(name: str, settings: DiscoveryConfig) -> Finder:
    """A finder of the pool with this name, which begins to look."""
    return Finder(name, partial(make_source, settings), settings.min_servers, settings.interval)


class DiscoveryDuty:
    """Of one instance. `look` is to be called a few times a second."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, make_finder: MakeFinder = new_finder,
                 clock: Clock = monotonic) -> None:
        self._segment, self._ledger, self._states = segment, ledger, states
        self._make_finder = make_finder
        self._clock = clock
        self._pools: dict[str, _Pool] = {}
        self._duties = Duties({}, clock)

    def use(self, config: Config) -> None:
        """Discover for the pools of this configuration. Where the settings are the same, nothing begins anew."""
        known, self._pools = self._pools, {}
        for name, pool in config.pools.items():
            before = known.get(name)
            if pool.discovery is None:
                self._let_go_all(name)
            elif before is not None and before.settings == pool.discovery:
                self._pools[name] = known.pop(name)
            else:
                self._pools[name] = _Pool(self._make_finder(name, pool.discovery), pool.discovery, self._clock)
        for pool_before in known.values():
            pool_before.finder.close()
        self._duties = Duties({f"discover servers of the pool {name}": partial(self._look_at, name, pool)
                               for name, pool in self._pools.items()}, self._clock)

    def look(self) -> None:
        """Take over what has been found. A pool that fails does not stop the others."""
        self._duties.look()

    def close(self) -> None:
        """Look no more."""
        for pool in self._pools.values():
            pool.finder.close()

    def _look_at(self, name: str, pool: _Pool) -> None:
        outcome, mark = pool.finder.outcome, self._segment.cells[at.H_MEMBERS]
        if outcome.servers is not None and (outcome.servers is not pool.in_force or mark != pool.mark or not pool.is_done):
            followed = follow_list(self._segment, self._ledger, self._states, name, outcome.servers)
            pool.in_force, pool.is_done, pool.problems = outcome.servers, followed.is_done, "; ".join(followed.problems)
            pool.mark = self._segment.cells[at.H_MEMBERS]
            pool.telling.note(followed)
        number = pool_number(self._segment, name)
        if number is not None:
            before = discovered_of(self._segment, number)
            if (found := pool.discovered(outcome, before)) != before:
                self._write(number, found)
        for kind, text in pool.telling.due(f"{outcome.error}; its servers stay as they are" if outcome.error else pool.problems):
            log.warning("pool %s: %s", name, text)
            with self._ledger.locked():
                record_event(self._segment, kind, text, name, who="discovery")

    def _write(self, number: int, found: Discovered | None) -> None:
        with self._ledger.locked():
            write_discovered(self._segment, number, found)

    def _let_go_all(self, name: str) -> None:
        """Let the discovered servers of a pool go that does not discover any more."""
        if (number := pool_number(self._segment, name)) is not None and discovered_of(self._segment, number) is not None:
            self._write(number, None)
        sources = self._states.source
        if any(pool == name and sources[slot] == AddedBy.DISCOVERY for (pool, _), slot in slots_by_key(self._segment).items()):
            follow_list(self._segment, self._ledger, self._states, name, {})


class _Pool:
    """A pool that discovers its servers."""

    def __init__(self, finder: Finder, settings: DiscoveryConfig, clock: Clock) -> None:
        self.finder = finder
        self.settings = settings
        self.telling = _Telling(clock)
        self.in_force: Mapping[str, object] | None = None  # the list that the pool's servers were last made those of
        self.mark = -1  # the changes of membership after that
        self.is_done = True
        self.problems = ""

    def discovered(self, outcome: Outcome, before: Discovered | None) -> Discovered:
        """How the discovery goes, as shared memory keeps it. Until there is a good list the facts of `before` stay: a controller
        before this one may have written them."""
        state = DiscoveryState.FAILING if outcome.error else DiscoveryState.GOOD if outcome.number else DiscoveryState.WAITING
        good_at, servers = (before.good_at, before.servers) if before is not None else (0.0, 0)
        if outcome.servers is not None:
            good_at, servers = int(outcome.good_at * 1000) / 1000, len(outcome.servers)
        return Discovered(state, good_at, servers, as_note(outcome.error or self.problems))


class _Telling:
    """Which events of a pool's discovery are recorded, and when: a list that changes all the time makes few."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._untold = Followed()
        self._told = ""  # the failure that was told last and is not over
        self._changes_at = self._failures_at = 0.0  # the next event of each kind comes not before

    def note(self, followed: Followed) -> None:
        """Add changes to those that the next event tells."""
        self._untold.add(followed)

    def due(self, failure: str) -> list[tuple[EventKind, str]]:
        """The events that are due. `failure`: what is wrong with the list, or with its servers; empty: all is well."""
        found, now = [], self._clock()
        if self._untold.in_words and now >= self._changes_at:
            found.append((EventKind.DISCOVERED, self._untold.in_words))
            self._untold, self._changes_at = Followed(), now + _CHANGES_S
        if failure != self._told and (not failure or now >= self._failures_at):
            found.append((EventKind.DISCOVERY_FAILED, failure) if failure else (EventKind.DISCOVERED, "the list is good again"))
            self._told = failure
            if failure:
                self._failures_at = now + _FAILURES_S
        return found
