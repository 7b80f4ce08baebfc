"""From the filters of a configuration to the objects that look at requests."""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from prefork_lb.config.filter_rules import filter_key, filters_of, settings_key
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError
from prefork_lb.filters import Filter, Memory, Setup
from prefork_lb.filters.loading import filter_class, make_filter
from prefork_lb.net.networks import lies_in
from prefork_lb.proxy.attempt import AttemptSettings
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.filtering import FilteringEngine, LoadedFilter
from prefork_lb.proxy.own_requests import OwnRequests
from prefork_lb.proxy.request import Ended
from prefork_lb.routing.match import Router
from prefork_lb.shared.filter_blocks import enter_filters
from prefork_lb.shared.ledger import Ledger
from prefork_lb.upstream.pool import Pool


class MadeFilter(NamedTuple):
    """A filter before it has a place in shared memory."""

    name: str  # of its class
    settings: str
    filter: Filter
    memory: Memory


def import_filters(config: Config) -> None:
    """Try whether the classes of the filters can be imported. Raises ConfigError."""
    for each, place in filters_of(config).values():
        try:
            filter_class(each.use)
        except ValueError as exc:
            raise ConfigError([f"{config.source}: {place}: {exc}"]) from exc


def make_filters(config: Config, settings: AttemptSettings) -> dict[str, MadeFilter]:
    """The filters of a configuration, by what tells them apart. Nothing is shared yet. Raises ConfigError."""
    found = {}
    for key, (each, place) in filters_of(config).items():
        memory = Memory()
        try:
            made = make_filter(each.use, Setup(each.settings, memory, OwnRequests(settings), settings.clock))
        except ValueError as exc:
            raise ConfigError([f"{config.source}: {place}: {exc}"]) from exc
        found[key] = MadeFilter(each.use, settings_key(each), made, memory)
    return found


def make_engine(config: Config, router: Router, pools: Mapping[str, Pool], settings: AttemptSettings,
                made: Mapping[str, MadeFilter], ledger: Ledger, copied: Ended | None) -> Engine:
    """The engine of a worker; `copied` as of `Engine`. The instance has room for the filters."""
    if not made:
        return Engine(router, pools, settings, copied)
    blocks = enter_filters(ledger.segment, ledger, [(each.name, each.settings) for each in made.values()])
    filters = {}
    for (key, each), block in zip(made.items(), blocks, strict=True):
        each.memory.use(block.cells, ledger.locked)
        filters[key] = LoadedFilter(each.name, each.filter, config.proxy.timeouts.filter, settings.clock, block.count_failure,
                                    block.count_late)
    of_pools = {name: [filter_key(each) for each in pool.filters] for name, pool in config.pools.items()}
    return FilteringEngine(router, pools, settings, filters, of_pools, lies_in(config.proxy.trusted_proxies), copied)
