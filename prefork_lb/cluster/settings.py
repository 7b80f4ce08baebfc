"""What operators set for a server on one balancer holds on all; of two settings the newer one counts.

Which is newer is told by the store's clock, which every balancer learns at each exchange. While the store is away it is counted
on from there by this host's monotonic clock, so what was set meanwhile has its time, too. A stamp is always greater than all that
this balancer has seen: a store that comes back with another clock turns nothing around.
"""
from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from prefork_lb.cluster.report import Key, Setting
from prefork_lb.errors import PreforkLBError
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.steering import FROM_CONFIGURATION, Change, Steering

UNTOUCHED = 0
"""The stamp of what nobody has set."""
FROM_BEFORE = 1
"""Of what was set before this process ran: every setting of another balancer is newer."""

log = logging.getLogger("prefork_lb")


class SharedSettings:
    """As one balancer keeps them."""

    def __init__(self, states: States, steering: Steering) -> None:
        self._states = states
        self._steering = steering
        self._known: dict[Key, Setting] = {}
        self._refused: dict[Key, Setting] = {}  # what could not be set, and was logged
        self._newest = FROM_BEFORE

    def look(self, servers: Mapping[Key, int], now_ms: int) -> list[Setting]:
        """Take over what operators have set here since the last look; all settings that others are to know.

        `now_ms` is the store's clock. Servers of which a source lets go are left out: it drains them, no operator.
        """
        found = {}
        for key, slot in servers.items():
            known = self._known.get(key)
            if self._states.leaving[slot]:
                continue
            present = self._setting(key, slot)
            if known is None:
                stamp = UNTOUCHED if present == _default(key) else FROM_BEFORE
                known = _stamped(present, stamp)
            elif _stamped(known, 0) != present:
                self._newest = max(now_ms, self._newest + 1)
                known = _stamped(present, self._newest)
            found[key] = known
        self._known = found
        return [setting for setting in found.values() if setting.stamp]

    def adopt(self, servers: Mapping[Key, int], told: Iterable[tuple[str, Setting]]) -> None:
        """Take over what is newer: settings of others, each with the name of the balancer that tells it.

        Servers that are put to use come first: no pool is to lose its last server while another one of them comes.
        """
        newest: dict[Key, tuple[str, Setting]] = {}
        for balancer, setting in told:
            self._newest = max(self._newest, setting.stamp)
            key = setting.pool, setting.address
            if key not in newest or _order(setting) > _order(newest[key][1]):
                newest[key] = balancer, setting
        for key, (balancer, setting) in sorted(newest.items(), key=lambda item: item[1][1].admin):
            known = self._known.get(key)
            if known is None or key not in servers or _order(setting) <= _order(known):
                continue
            try:
                self._steering.change(*key, _change(known, setting), f"balancer {balancer}")
            except (PreforkLBError, ValueError) as exc:  # it is told again with each exchange, and tried again
                if self._refused.get(key) != setting:
                    self._refused[key] = setting
                    log.warning("pool %s: server %s: what balancer %s tells cannot be set: %s", *key, balancer, exc)
            else:
                self._known[key] = setting
                self._refused.pop(key, None)

    def _setting(self, key: Key, slot: int) -> Setting:
        limit = self._states.limit_set(slot)
        return Setting(*key, self._states.admin[slot], self._states.weight_set[slot], -1 if limit is None else limit, 0)


def _default(key: Key) -> Setting:
    return Setting(*key, Admin.READY, 0, -1, 0)


def _stamped(setting: Setting, stamp: int) -> Setting:
    """The same setting with another stamp."""
    return Setting(setting.pool, setting.address, setting.admin, setting.weight, setting.limit, stamp)


def _order(setting: Setting) -> tuple[int, int, int, int]:
    """Of two the greater one counts. Equal stamps are decided alike everywhere."""
    return setting.stamp, setting.admin, setting.weight, setting.limit


def _change(known: Setting, wanted: Setting) -> Change:
    """What makes one setting of another."""
    return Change(
        Admin(wanted.admin) if wanted.admin != known.admin else None,
        (wanted.weight or FROM_CONFIGURATION) if wanted.weight != known.weight else None,
        (FROM_CONFIGURATION if wanted.limit < 0 else wanted.limit) if wanted.limit != known.limit else None)
