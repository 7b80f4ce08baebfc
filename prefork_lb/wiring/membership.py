"""A worker's membership in its instance: the segment, one row, and the configuration that the worker puts into force."""
from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from prefork_lb.config.difference import differences
from prefork_lb.config.model import Config
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.observe.splits import splits_of
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import EventKind, recent, record_event, this_process
from prefork_lb.shared.finding import find
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.published_config import check_room, is_published, lay_down
from prefork_lb.shared.rows import Rows
from prefork_lb.shared.segment import SegmentError
from prefork_lb.shared.split_weights import forget_other_routes
from prefork_lb.shared.state_file import restore
from prefork_lb.shared.states import NOT_CHECKED_YET, States
from prefork_lb.shared.sweeping import Sweeper
from prefork_lb.shared.table import PoolSlots, enter
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.transitions import Check
from prefork_lb.wiring.room import first_check, packed, pool_entries, problems_of_extras

REFUSED = "the configuration before stays in force: "
"""How the text of an event begins when the new workers of a reload cannot use its configuration."""
_SAME_RELOAD_S = 10.0

log = logging.getLogger("prefork_lb")


class Membership:
    """Each worker process makes one, and keeps it when a configuration cannot be put into force."""

    def __init__(self, master: int, predecessor: int, room: Layout, one_thread: bool, read_at: int = 0) -> None:
        """Attach to the instance of the gunicorn master with the pid `master`. A new instance is made with `room`.
        `read_at` is when the master read the configuration, in nanoseconds of the monotonic clock; 0: this worker has read it.

        Raises SegmentError, and NoRowLeft when every row belongs to another process.
        """
        self.master = master
        self._read_at = read_at
        self.segment = attach_or_create(master, room, predecessor)
        self.ledger = Ledger(self.segment, one_thread)
        self.states = States(self.segment)
        self.sweeper = Sweeper(self.segment, self.ledger, self.states)

    def put_into_force(self, config: Config) -> Mapping[str, PoolSlots]:
        """Enter the pools and servers, begin their checks and publish this configuration to the controller.

        All or nothing: raises SegmentError before anything is written when there is no room.
        """
        data = packed(config)
        if problems := problems_of_extras(config, self.segment):
            raise SegmentError(f"{self.segment.name}: {'; '.join(problems)}")
        if config.counts and not self.segment.layout.statistics:
            log.warning("no room for statistics, since neither [admin] nor metrics.statsd was there at the start; restart "
                        "gunicorn to make it")
        if config.cluster is not None and self.segment.layout.rates and not self.segment.layout.rate_uses:
            log.warning("limits of a rate hold in this balancer alone, since [cluster] was not there at the start; restart "
                        "gunicorn to share them")
        # All workers but the first find nothing new. To decode what is in force would take a megabyte of each worker's own.
        changes = "" if is_published(self.segment, data) else self._changes(config)
        routes = [split.route for split in splits_of(config)]
        with self.ledger.locked():
            check_room(self.segment.layout, data)
            is_reload = self._is_reload(data)
            slots = enter(self.segment, self.ledger, pool_entries(config), is_reload)
            if is_reload:
                forget_other_routes(self.segment, routes)
            self._begin_checks(config)
            if lay_down(self.segment, data):
                record_event(self.segment, EventKind.RELOAD,
                             f"{config.source} is in force: {changes or 'another one was meanwhile'}")
            # After the event of the configuration: who waits for this worker finds that one, too.
            record_event(self.segment, EventKind.WORKER_STARTED, f"worker {os.getpid()} started", who=this_process(self.segment))
            # Last: if this worker is killed before, the next one does it again.
            self.segment.cells[at.H_READ] = max(self._read_at, self.segment.cells[at.H_READ])
        if config.state.file:
            told = restore(Path(config.state.file), config.state.max_age, self.segment, self.ledger, self.states, routes)
            if told:
                log.warning("%s", told)
        return slots

    def tell_of_refusal(self, problem: str) -> None:
        """Record that a new configuration could not be put into force; once for all workers of a reload."""
        text = REFUSED + problem
        with self.ledger.locked():
            since = time.time() - _SAME_RELOAD_S
            if not any(event.text == text and event.at >= since for event in recent(self.segment)):
                record_event(self.segment, EventKind.RELOAD, text)

    def _changes(self, config: Config) -> str:
        """What `config` changes in the instance, for people."""
        before = configuration_of(self.segment)
        if before is None:
            return "configuration of the start"
        return "; ".join(differences(before, config)) or "it says the same as before"

    def _is_reload(self, packed_config: bytes) -> bool:
        """Whether the configuration was read after the one in force was. The lock must be held."""
        if self._read_at:
            return self._read_at > self.segment.cells[at.H_READ]
        # Each worker has read it for itself, also one that replaces a dead one: then it is news only if it says something else.
        return not is_published(self.segment, packed_config)

    def _begin_checks(self, config: Config) -> None:
        """Set the first state of servers whose checks begin now, and clear the state of servers whose checks have ended."""
        states = self.states
        for (name, _), slot in slots_by_key(self.segment).items():
            if name not in config.pools:
                continue
            first = first_check(config.pools[name])
            if first is Check.NONE:
                states.forget_check(slot)
            elif states.check[slot] == Check.NONE:
                states.set_check(slot, first, NOT_CHECKED_YET)
                states.checked[slot] = 0


def config_in_force(master: int) -> Config | None:
    """The configuration in force in the instance of this gunicorn master; None if there is none yet. Raises SegmentError."""
    segment = find(master)
    if segment is None:
        return None
    try:
        return configuration_of(segment)
    finally:
        segment.close()


def has_other_workers(master: int) -> bool:
    """Whether workers of this gunicorn master's instance run, other than this process. Raises SegmentError."""
    segment = find(master)
    if segment is None:
        return False
    try:
        rows = Rows(segment)
        return any(rows.owner(row) not in (0, os.getpid()) for row in rows.in_use())
    finally:
        segment.close()
