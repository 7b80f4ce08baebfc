"""A snapshot of an instance, for tools and tests. Any process of the instance's user can take it; it needs no lock."""
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from prefork_lb.shared import layout as at
from prefork_lb.shared.balancers import Balancer, balancers, is_together
from prefork_lb.shared.discovered import Discovered, discovered_of
from prefork_lb.shared.filter_blocks import FilterCounts, filter_counts
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.rows import Rows
from prefork_lb.shared.scaling_state import Scaling, scaling_of
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.statistics import InstanceNumbers, Numbers, PoolNumbers, ServerNumbers
from prefork_lb.shared.table import AddedBy, Standing
from prefork_lb.shared.table_lookup import owner_of
from prefork_lb.shared.text import read_text
from prefork_lb.shared.transitions import Check, Ejection

_EJECTIONS = {Ejection.NONE: "", Ejection.EJECTED: "ejected", Ejection.TRIAL_DUE: "trial", Ejection.ON_TRIAL: "trial"}


@dataclass(frozen=True, slots=True)
class ServerView:
    pool: str
    address: str
    weight: int
    max_connections: int
    backup: bool
    in_flight: int
    requests: int
    failures: int
    state: str  # ready, drain or maintenance
    check: str  # none, up, checking or down
    note: str  # the result of the last check, in words
    checked_s: float | None  # how long ago the last check ended; None: there has been none
    ejected_s: float  # the time left of its ejection; 0: it is not ejected, or a trial is due
    usable: bool  # ready, up or not checked, and not ejected
    ejection: str = ""  # "ejected", or "trial" when a request is to decide, or decides, whether it comes back; "": neither
    ejection_reason: str = ""
    weight_configured: int = 1  # `weight` unless a command has set another one
    max_connections_configured: int = 0  # likewise
    origin: str = "configuration"  # or "runtime": it was added at run time
    source: str = "configuration"  # or what added it: "operator", "discovery", "scaling"
    failed_at: float | None = None  # when a request last got no whole answer, in seconds since the epoch; None: none has
    failure: str = ""  # why it got none
    leaving: bool = False  # its source does not want it any more; it is removed when nothing is left on it
    times_ejected: int = 0  # so far
    checks_passed: int = 0
    checks_failed: int = 0
    numbers: ServerNumbers | None = None  # None: the instance keeps no statistics. So it is with pools and the instance
    version: str = ""  # stands for all that operators can change
    slot: int = -1  # of the server's columns
    sessions: int | None = None  # None: they were not counted


@dataclass(frozen=True, slots=True)
class PoolView:
    """A limit of 0 means no limit."""

    name: str
    in_flight: int
    in_flight_limit: int
    waiting: int  # requests in the queue, and in the lines of sessions that wait for their server
    queue_size: int
    retries: int  # under way
    retries_limit: int
    refused: int  # requests and retries that a limit of the pool has refused so far
    panic: bool  # too few servers are up by their checks: all are used
    tripped: list[str]  # the limits that are reached at this moment: in_flight, retries, queue, max_connections
    retried: int  # further attempts so far, each after a failure
    hedged: int  # further attempts so far, each beside one that took long
    queued: int  # requests that have waited in the queue so far
    queued_s: float  # for how long they did, in all
    numbers: PoolNumbers | None
    scaling: Scaling | None = None  # None: its servers are not started here
    discovery: Discovered | None = None  # None: it discovers no servers


@dataclass(frozen=True, slots=True)
class WorkerView:
    pid: int
    generation: int
    in_flight: int
    lingers_s: int = 0  # how long it has lingered: it was replaced and serves its open connections. 0: it was not replaced
    lingering: int = 0  # the client connections that a lingering worker has
    clients: int | None = None  # its client connections; None: it does not tell
    lag_s: float | None = None  # how far its loop lags; None: it does not measure this
    compiled: bool = False  # it has the compiled modules


@dataclass(frozen=True, slots=True)
class InstanceView:
    master: int  # the newest gunicorn master's pid
    segment: str
    generation: int
    reclaimed: int  # claims given back for dead workers
    repairs: int  # times a worker died inside the lock
    controller: int  # its pid; 0: none is at work
    controller_silent_s: float | None  # how long ago it last gave a sign of life; None: none is at work
    started: int  # seconds since the epoch
    workers_started: int  # so far
    workers_ended: int  # so far, in good order, of those whose rows were given back
    workers_died: int  # so far, otherwise
    workers: list[WorkerView]
    pools: list[PoolView]
    servers: list[ServerView]
    numbers: InstanceNumbers | None
    balancers: list[Balancer]  # that share, this one among them; empty: the configuration does not ask for it
    together: bool  # this balancer shares with others now; it goes on by itself otherwise
    filters: list[FilterCounts]
    split_weights: dict[tuple[str, str], int]  # in force, by number of the route and pool


def view(segment: Segment, sessions: Mapping[tuple[str, str], int] = MappingProxyType({}),
         split_weights: Mapping[tuple[str, str], int] = MappingProxyType({})) -> InstanceView:
    """Read a segment. A dead process whose row was not given back yet is left out of `workers`, but counts in the totals.

    `sessions` are those of servers, by pool and address, as they were counted; `split_weights` those in force, by number of the
    route and pool, which the configuration says.
    """
    cells, layout = segment.cells, segment.layout
    found = Rows(segment)
    rows = found.in_use()
    requests = _sums(segment, rows, at.A_REQUESTS, at.C_PAST_REQUESTS)
    failures = _sums(segment, rows, at.A_FAILURES, at.C_PAST_FAILURES)

    def get(column: int, slot: int) -> int:
        return int(cells[layout.column(column).start + slot])

    states = States(segment)
    now = now_ms()
    numbers = Numbers(segment) if layout.statistics else None
    servers = []
    own_waiting: Counter[str] = Counter()  # by pool
    leaving: Counter[str] = Counter()  # requests in flight on servers that were removed, by pool
    for slot in range(layout.servers):
        owner = owner_of(segment, slot)
        if owner is None:
            continue
        pool, address = owner
        own_waiting[pool] += get(at.C_OWN_WAITING, slot)
        if states.standing[slot] == Standing.REMOVED:
            leaving[pool] += get(at.C_TOTAL, slot)
        else:
            is_added = states.standing[slot] == Standing.ADDED
            limit, limit_set = get(at.C_MAX_CONNECTIONS, slot), states.limit_set(slot)
            servers.append(ServerView(
                pool, address, states.weight_set[slot] or get(at.C_WEIGHT, slot), limit if limit_set is None else limit_set,
                bool(get(at.C_BACKUP, slot)), get(at.C_TOTAL, slot), requests[slot], failures[slot],
                Admin(states.admin[slot]).name.lower(), Check(states.check[slot]).name.lower(), states.note(slot),
                _age_s(states.checked[slot] if states.check[slot] else 0, now),
                max(0, states.ejected_until[slot] - now) / 1000, states.is_usable(slot),
                _EJECTIONS[Ejection(states.ejection[slot])], states.ejection_reason(slot) if states.is_ejected(slot) else "",
                get(at.C_WEIGHT, slot), limit, "runtime" if is_added else "configuration",
                AddedBy(states.source[slot]).name.lower() if is_added else "configuration",
                states.failed_at[slot] / 1000 if states.failed_at[slot] else None,
                states.failure(slot) if states.failed_at[slot] else "", bool(states.leaving[slot]),
                states.times_ejected[slot], states.checks_passed[slot], states.checks_failed[slot],
                numbers.server(slot) if numbers else None, states.version(slot), slot, sessions.get(owner)))
    states.close()
    workers = [_worker(segment, row, pid) for row in rows if (pid := found.owner(row))]
    masters = segment.masters()
    # A controller without a beat still loads its modules, or will end before it begins its work.
    beat = cells[at.H_BEAT]
    controller = cells[at.H_CONTROLLER] if beat and is_alive(cells[at.H_CONTROLLER], cells[at.H_CONTROLLER + 1]) else 0
    return InstanceView(masters[-1] if masters else 0, segment.name, cells[at.H_GENERATION], cells[at.H_RECLAIMED],
                        cells[at.H_REPAIRS], controller, _age_s(beat, now) if controller else None, cells[at.H_CREATED],
                        cells[at.H_JOINS], cells[at.H_ENDED], cells[at.H_DIED], workers,
                        _pools(segment, rows, servers, own_waiting, leaving, numbers), servers,
                        numbers.instance if numbers else None, balancers(segment), is_together(segment),
                        filter_counts(segment), dict(split_weights))


def _worker(segment: Segment, row: int, pid: int) -> WorkerView:
    cells, layout = segment.cells, segment.layout
    head = layout.row(row)
    since, clients, lag = cells[head + at.R_LINGERS], cells[head + at.R_CLIENTS], cells[head + at.R_LAG]
    return WorkerView(pid, cells[head + at.R_GENERATION], sum(cells[layout.row_array(row, at.A_CLAIMS)].tolist()),
                      max(1, int(time.time()) - since) if since else 0, cells[head + at.R_LINGERING],
                      cells[head + at.R_LINGERING] if since else clients - 1 if clients else None,
                      (lag - 1) / 1e6 if lag else None, bool(cells[head + at.R_COMPILED]))


def _age_s(instant_ms: int, now: int) -> float | None:
    """Seconds since an instant that is given in milliseconds; None for 0, which means no instant."""
    return max(0, now - instant_ms) / 1000 if instant_ms else None


def _pools(segment: Segment, rows: list[int], servers: list[ServerView], own_waiting: Counter[str], leaving: Counter[str],
           numbers: Numbers | None) -> list[PoolView]:
    cells, layout = segment.cells, segment.layout
    found = []
    for number in range(layout.pools):
        start = layout.pool(number)
        if not cells[start + at.P_USED]:
            continue
        name = read_text(segment.text, layout.pool_key_byte(number))
        mine = [server for server in servers if server.pool == name]
        in_flight = sum(server.in_flight for server in mine) + leaving[name]
        queued, retries = cells[start + at.P_WAITING], sum(cells[layout.row_array(row, at.A_RETRIES)][number] for row in rows)
        limits = cells[start + at.P_LIMIT], cells[start + at.P_QUEUE_SIZE], cells[start + at.P_RETRY_LIMIT]
        usable = [server for server in mine if server.usable]
        tripped = [what for what, count, limit in (
            ("in_flight", in_flight, limits[0]), ("queue", queued, limits[1]), ("retries", retries, limits[2]),
        ) if limit and count >= limit]
        if usable and all(0 < server.max_connections <= server.in_flight for server in usable):
            tripped.append("max_connections")
        found.append(PoolView(name, in_flight, limits[0], queued + own_waiting[name], limits[1], retries, limits[2],
                              cells[start + at.P_REFUSED], bool(cells[start + at.P_PANIC]), tripped,
                              cells[start + at.P_RETRIED], cells[start + at.P_HEDGED], cells[start + at.P_QUEUED],
                              cells[start + at.P_QUEUED_US] / 1e6, numbers.pool(number) if numbers else None,
                              scaling_of(segment, number), discovered_of(segment, number)))
    return sorted(found, key=lambda pool: pool.name)


def _sums(segment: Segment, rows: list[int], array: int, past: int) -> list[int]:
    columns = [segment.cells[segment.layout.row_array(row, array)].tolist() for row in rows]
    columns.append(segment.cells[segment.layout.column(past)].tolist())
    return [sum(values) for values in zip(*columns, strict=True)]
