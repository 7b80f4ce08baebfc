"""What a configuration may say of filters, and which there are."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.filters import FilterConfig
from prefork_lb.config.model import Config
from prefork_lb.config.names import CLASS
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.positions import Path
from prefork_lb.config.routes import RouteConfig
from prefork_lb.errors import shown

_LONGEST_NAME = 120


def check_filters(filters: Sequence[FilterConfig | None], place: Path, report: ReportProblem) -> None:
    """Report names that are none. Values that were reported before stand as None and are passed over."""
    for number, each in enumerate(filters or ()):
        if each is not None and each.use is not None and (not CLASS.fullmatch(each.use) or len(each.use) > _LONGEST_NAME):
            report((*place, number), f'{shown(each.use)} is no filter; expected "package.module:Class"')


def check_pools_of_filters(routes: Sequence[RouteConfig | None], pools: Mapping[str, PoolConfig | None],
                           report: ReportProblem) -> None:
    """Report routes with several pools of which one has filters: filters look before it is known which pool serves."""
    for index, route in enumerate(routes):
        for name in (*(route.split or {}), route.failover) if route is not None else ():
            pool = pools.get(name or "")
            if pool is not None and pool.filters:
                report(("routes", index), f"the pool {name} has filters, which would not see all requests of this route; "
                       "give them to the route")


def filter_key(filter_: FilterConfig) -> str:
    """What tells a filter from others: its class and settings."""
    return f"{filter_.use} {settings_key(filter_)}"


def settings_key(filter_: FilterConfig) -> str:
    """The settings as a text, the same for the same ones."""
    return json.dumps(filter_.settings, sort_keys=True)


def filters_of(config: Config) -> dict[str, tuple[FilterConfig, str]]:
    """The filters of a configuration by what tells them apart, each with the first place that names it."""
    found: dict[str, tuple[FilterConfig, str]] = {}
    places = [(f"routes[{index}].filters", route.filters) for index, route in enumerate(config.routes)]
    places += [(f"pools.{name}.filters", pool.filters) for name, pool in config.pools.items()]
    for place, filters in places:
        for number, each in enumerate(filters):
            found.setdefault(filter_key(each), (each, f"{place}[{number}]"))
    return found
