"""Active checks: which servers are checked, by the configuration, and the results, into shared memory.

What makes the checks is imported when there is a server to check: 4 MiB that other instances do without.
"""
from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING

from prefork_lb.config.added import added_server
from prefork_lb.config.model import Config
from prefork_lb.config.pool import ServerConfig
from prefork_lb.controller.streak import CheckState
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.table import Standing
from prefork_lb.shared.table_lookup import server_at, slots_by_key
from prefork_lb.shared.transitions import Check

if TYPE_CHECKING:
    from prefork_lb.controller.probe import CheckOutcome
    from prefork_lb.controller.schedule import CheckSchedule

Checked = dict[tuple[str, str], tuple[ServerConfig, int, Check]]
"""By pool and address: the server, its slot, and what is known of it."""

log = logging.getLogger("prefork_lb")

_STATES = {CheckState.UP: Check.UP, CheckState.DOWN: Check.DOWN, CheckState.CHECKING: Check.CHECKING}
_KNOWN = {state: known for known, state in _STATES.items()}


class ActiveChecks:
    """Has the servers checked and writes what the checks say into shared memory. `look` is to be called a few times a second."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment = segment
        self._ledger = ledger
        self._states = states
        self._config: Config | None = None
        self._seen = -1
        self._seen_elsewhere: frozenset[int] = frozenset()
        self._slots: Mapping[Hashable, int] = {}  # written and read under the ledger's lock
        self._schedule: CheckSchedule | None = None  # None: there was no server to check yet
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def use(self, config: Config) -> None:
        """Check as this configuration says, from the next look on."""
        self._config = config
        self._seen = -1

    def look(self) -> None:
        """Follow the changes of servers: those that came, went, or are under maintenance."""
        changes, elsewhere = self._states.changes, self._checked_elsewhere()
        if self._config is None or (changes == self._seen and elsewhere == self._seen_elsewhere):
            return
        checked: Checked = {}
        with self._ledger.locked():
            for key, server, slot in self._servers(self._config):
                pool = self._config.pools[key[0]]
                if pool.health is None:
                    # The first worker forgot it when the checks ended, but the result of one under way may have come after that.
                    self._states.forget_check(slot)
                elif self._states.admin[slot] != Admin.MAINTENANCE and slot not in elsewhere:
                    checked[key] = server, slot, Check(self._states.check[slot])
            self._slots = {key: slot for key, (_, slot, _) in checked.items()}
        if checked or self._schedule is not None:
            self._hand_out(self._config, checked)
        self._seen, self._seen_elsewhere = changes, elsewhere  # last: what failed is made again at the next look

    def _hand_out(self, config: Config, checked: Checked) -> None:
        from prefork_lb.controller.check_targets import target_for
        from prefork_lb.controller.probe import Prober
        from prefork_lb.controller.schedule import CheckSchedule

        if self._schedule is None:
            self._schedule = CheckSchedule(Prober(), self._report)
            self._thread = threading.Thread(target=self._schedule.run, args=(self._stop,), name="prefork_lb checks", daemon=True)
            self._thread.start()
        limits = config.proxy.limits.head
        self._schedule.set_targets([target_for(key, server, config.pools[key[0]], limits, _KNOWN.get(known))
                                    for key, (server, _, known) in checked.items()])

    def _checked_elsewhere(self) -> frozenset[int]:
        """The slots of servers that another balancer checks for this one."""
        now = now_ms()
        return frozenset(slot for slot, until in enumerate(self._states.checked_elsewhere.tolist()) if until > now)

    def _servers(self, config: Config) -> Iterator[tuple[tuple[str, str], ServerConfig, int]]:
        """The servers that the pools of a configuration have, with their slots. The lock must be held."""
        named = {(name, server.address): server for name, pool in config.pools.items() for server in pool.servers}
        for key, slot in slots_by_key(self._segment).items():
            if key in named:
                yield key, named[key], slot
            elif key[0] in config.pools and self._states.standing[slot] == Standing.ADDED:
                yield key, added_server(config.pools[key[0]], key[1]), slot

    def close(self) -> None:
        """End the checks."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._schedule is not None:
            self._schedule.close()

    def _report(self, key: Hashable, state: CheckState, outcome: CheckOutcome) -> None:
        found = _STATES[state]
        with self._ledger.locked():
            slot = self._slots.get(key)
            # The server is not checked any more, or its slot was freed since the last look and may be another server's.
            if slot is None or server_at(self._segment, slot) != key:
                return
            before = self._states.check[slot]
            self._states.set_check(slot, found, outcome.reason)
            self._states.count_check(slot, bool(outcome.passed))
        if before != found:
            assert isinstance(key, tuple)
            log.warning("pool %s: server %s is %s: %s", key[0], key[1], state.value, outcome.reason)
