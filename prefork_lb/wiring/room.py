"""How much room an instance has in shared memory, and what does not fit into the room of one that runs.

The room is made once, by the first worker, for the configuration of the start and for what reloads may bring: a table of
servers that is replaced by another one as long, twice the workers side by side, and processes that outlive their worker.
"""
from __future__ import annotations

from prefork_lb.config.filter_rules import filters_of
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig, ServerConfig
from prefork_lb.config.published import encode_published
from prefork_lb.shared.layout import RATE_USES
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.published_config import check_room, pack
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.table import PoolEntry, ServerEntry, problems_of_room
from prefork_lb.shared.transitions import Check

_LEAST_ROWS, _MORE_ROWS = 28, 4  # with 8 workers a server takes 4 KiB at most
_LEAST_SERVERS, _LEAST_POOLS, _LEAST_CONFIGURATION_BYTES = 256, 40, 8192
# Of a pool. The table has room for twice as many: a list may be replaced by another one as long, while those of the first drain.
_DISCOVERED_SERVERS = 512
_LIMITED_KEYS = 131072  # 2 MiB
_KEYS_IN_FLIGHT = 8192  # 64 KiB for each worker, and 128 KiB
_LEAST_FILTERS = 16


def room_for(config: Config, workers: int) -> Layout:
    """The room that a start with this configuration and so many workers makes."""
    servers, pools = sum(map(_most_servers, config.pools.values())), len(config.pools)
    configuration = 2 * len(packed(config)) // 8 * 8
    return Layout(
        rows=max(_LEAST_ROWS, 3 * workers + _MORE_ROWS), servers=max(_LEAST_SERVERS, 2 * servers),
        pools=max(_LEAST_POOLS, 2 * pools), configuration_bytes=max(_LEAST_CONFIGURATION_BYTES, configuration),
        own_lines=int(bool(waiting_pools(config))), sessions=learned_sessions(config),
        answer_times=int(any(map(_goes_by_times, config.pools.values()))), statistics=int(config.counts),
        rates=limited_keys(config), keys=keys_in_flight(config), filters=_filters(config),
        rate_uses=RATE_USES if config.cluster is not None and limited_keys(config) else 0)


def _most_servers(pool: PoolConfig) -> int:
    scaled = pool.scaling.max if pool.scaling is not None else 0
    return len(pool.servers) + scaled + (_DISCOVERED_SERVERS if pool.discovery is not None else 0)


def waiting_pools(config: Config) -> list[str]:
    """The pools in which a request may wait for the server of its session."""
    return [name for name, pool in config.pools.items() if pool.sticky is not None and pool.sticky.on_failure == "wait"]


def _goes_by_times(pool: PoolConfig) -> bool:
    """Whether the pool's policy goes by the times of answers."""
    return pool.policy in ("peak-ewma", "least-time") or pool.load != "connections"


def learned_sessions(config: Config) -> int:
    """The sessions that all pools together may learn."""
    return sum(pool.sticky.size for pool in config.pools.values() if pool.sticky is not None and pool.sticky.mode == "learn")


def limited_keys(config: Config) -> int:
    """The keys of limits of a rate that are remembered."""
    return _LIMITED_KEYS if any(route.rate is not None for route in config.routes) else 0


def keys_in_flight(config: Config) -> int:
    """The keys whose requests in flight are counted."""
    return _KEYS_IN_FLIGHT if any(route.concurrency is not None for route in config.routes) else 0


def _filters(config: Config) -> int:
    count = len(filters_of(config))
    return max(_LEAST_FILTERS, 2 * count) if count else 0


def most_workers(layout: Layout) -> int:
    """The workers that a reload can start: old and new ones run side by side."""
    return layout.rows // 2


def problems_at_reload(config: Config, workers: int, segment: Segment) -> list[str]:
    """Why a reload cannot put this configuration into force in a running instance; empty when it can."""
    found = problems_of_room(segment, pool_entries(config))
    try:
        check_room(segment.layout, packed(config))
    except SegmentError as exc:
        found.append(str(exc))
    found += problems_of_extras(config, segment)
    if workers > most_workers(segment.layout):
        found.append(f"room for {most_workers(segment.layout)} workers only; restart gunicorn to make more")
    return found


def problems_of_extras(config: Config, segment: Segment) -> list[str]:
    """Why a running instance has no room for what not every configuration needs; empty when it has."""
    found = []
    timed = [name for name, pool in config.pools.items() if _goes_by_times(pool)]
    if timed and not segment.layout.answer_times:
        found.append(f"no room for the times of answers that the policy of the pool {timed[0]} goes by, since no pool had such a "
                     "policy at the start; restart gunicorn to make it")
    if learned_sessions(config) and not segment.layout.sessions:
        found.append("no room for sessions, since no pool learned any at the start; restart gunicorn to make it")
    if limited_keys(config) and not segment.layout.rates:
        found.append("no room for a limit of a rate, since no route had one at the start; restart gunicorn to make it")
    if keys_in_flight(config) and not segment.layout.keys:
        found.append("no room for a limit of requests in flight by key, since no route had one at the start; restart gunicorn to "
                     "make it")
    filters = len(filters_of(config))
    if filters and not segment.layout.filters:
        found.append("no room for filters, since there was none at the start; restart gunicorn to make it")
    elif filters > segment.layout.filters:
        found.append(f"room for {segment.layout.filters} filters only, and there are {filters}; restart gunicorn to make more")
    if (waiting := waiting_pools(config)) and not segment.layout.own_lines:
        found.append(f"no room for requests of the pool {waiting[0]} that wait for their server (sticky.on_failure); "
                     "restart gunicorn to make it")
    return found


def packed(config: Config) -> bytes:
    """The configuration as it lies in shared memory."""
    return pack(encode_published(config))


def pool_entries(config: Config) -> list[PoolEntry]:
    """The pools as the server table takes them."""
    return [PoolEntry(name, [_server_entry(server) for server in pool.servers], pool.breaker.in_flight,
                      pool.queue.size if pool.queue else 0, pool.breaker.retries, first_check(pool), pool.mode == "redirect",
                      pool.may_be_empty)
            for name, pool in config.pools.items()]


def first_check(pool: PoolConfig) -> Check:
    """The state in which the servers of a pool begin."""
    if pool.health is None:
        return Check.NONE
    return Check.UP if pool.health.start == "up" else Check.CHECKING


def _server_entry(server: ServerConfig) -> ServerEntry:
    return ServerEntry(server.address, server.weight, server.max_connections, server.backup)
