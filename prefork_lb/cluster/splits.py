"""Weights of a split that operators set on one balancer hold on all; of two settings of a route the newer one counts.

Stamps are made as in `cluster.settings`. A route is the same on all balancers by its conditions. A balancer without it passes
over what others tell. A setting has the weights of all pools of the route. A balancer with other pools uses the weights of those
that it has, and tells on what it was told.
"""
from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prefork_lb.cluster.report import SplitSetting
from prefork_lb.cluster.settings import FROM_BEFORE, UNTOUCHED
from prefork_lb.config.published import decode_published
from prefork_lb.errors import PreforkLBError
from prefork_lb.observe.splits import splits_of
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import published
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.split_weights import ConfiguredSplit, SetWeights, set_weights
from prefork_lb.shared.steering import Steering

log = logging.getLogger("prefork_lb")


@dataclass(slots=True)
class _Known:
    """Of a route."""

    setting: SplitSetting
    here: Mapping[str, int]  # the weights that are set here because of it; others mean that an operator has changed them


class SharedSplits:
    """As one balancer keeps them."""

    def __init__(self, segment: Segment, ledger: Ledger, steering: Steering) -> None:
        self._segment, self._ledger, self._steering = segment, ledger, steering
        self._known: dict[int, _Known] = {}
        self._newest = FROM_BEFORE
        self._splits: dict[int, ConfiguredSplit] = {}
        self._configuration, self._changes = 0, -1  # the header's cells that this was read at

    def look(self, now_ms: int) -> list[SplitSetting]:
        """Take over what operators have set here since the last look; all settings that others are to know.

        `now_ms` is the store's clock. Two comparisons when nothing has changed.
        """
        cells = self._segment.cells
        if cells[at.H_CONFIGURATION] != self._configuration:
            self._configuration, data = published(self._segment)
            self._splits = {split.route: split for split in splits_of(decode_published(data)[0])} if data else {}
            self._changes = -1
        if cells[at.H_SPLITS] != self._changes:
            self._changes = cells[at.H_SPLITS]  # before the weights: what is set meanwhile is seen at the next look
            present = self._present()
            self._known = {route: self._seen(route, present.get(route, {}), now_ms) for route in self._splits}
        return [known.setting for known in self._known.values() if known.setting.stamp]

    def adopt(self, told: Iterable[tuple[str, SplitSetting]]) -> None:
        """Take over what is newer: settings of others, each with the name of the balancer that tells it."""
        for balancer, setting in told:
            self._newest = max(self._newest, setting.stamp)
            known, split = self._known.get(setting.route), self._splits.get(setting.route)
            if known is None or split is None or _order(setting) <= _order(known.setting):
                continue
            weights = {pool: setting.weights.get(pool) for pool in split.weights}
            try:
                self._steering.set_split(split, weights, f"balancer {balancer}")
            except PreforkLBError as exc:
                log.warning("the split of the route %d: what balancer %s tells cannot be set: %s", split.place, balancer, exc)
            self._known[split.route] = _Known(setting, self._present().get(split.route, {}))

    def _seen(self, route: int, weights: Mapping[str, int], now_ms: int) -> _Known:
        known = self._known.get(route)
        if known is None:
            stamp = FROM_BEFORE if weights else UNTOUCHED
        elif known.here == weights:
            return known
        else:
            stamp = self._newest = max(now_ms, self._newest + 1)
        return _Known(SplitSetting(route, dict(weights), stamp), weights)

    def _present(self) -> SetWeights:
        with self._ledger.locked():
            return set_weights(self._segment)


def _order(setting: SplitSetting) -> tuple[int, list[tuple[str, int]]]:
    """Of two the greater one counts. Equal stamps are decided alike everywhere."""
    return setting.stamp, sorted(setting.weights.items())
