"""An instance as it is at this moment, for tools and tests: read without the lock, from any process of its user."""
from __future__ import annotations

from dataclasses import dataclass

from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, Check, States, now_ms
from prefork_lb.shared.text import read_text


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
    note: str  # what came of the last check
    ejected_s: float  # for how long it is still ejected; 0: it is not, or a trial is due
    usable: bool  # ready, up as far as checks go, and not ejected


@dataclass(frozen=True, slots=True)
class WorkerView:
    pid: int
    generation: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class InstanceView:
    master: int  # the newest gunicorn master's pid
    segment: str
    generation: int
    reclaimed: int  # claims given back for dead workers
    repairs: int  # times a worker died inside the lock
    controller: int  # its pid; 0: none runs
    workers: list[WorkerView]
    servers: list[ServerView]


def view(segment: Segment) -> InstanceView:
    """Look at a segment. Rows of processes that are gone but not given back yet are left out of `workers`, not of the totals."""
    cells, layout = segment.cells, segment.layout
    rows = [row for row in range(layout.rows) if cells[layout.row(row) + at.R_PID]]
    requests = _sums(segment, rows, 1, at.C_PAST_REQUESTS)
    failures = _sums(segment, rows, 2, at.C_PAST_FAILURES)

    def get(column: int, slot: int) -> int:
        return int(cells[layout.column(column).start + slot])

    states = States(segment)
    now = now_ms()
    servers = []
    for slot in range(layout.servers):
        if get(at.C_USED, slot):
            pool, _, address = read_text(segment.text, layout.server_key_byte(slot)).partition("\n")
            servers.append(ServerView(
                pool, address, states.weight_set[slot] or get(at.C_WEIGHT, slot), get(at.C_MAX_CONNECTIONS, slot),
                bool(get(at.C_BACKUP, slot)), get(at.C_TOTAL, slot), requests[slot], failures[slot],
                Admin(states.admin[slot]).name.lower(), Check(states.check[slot]).name.lower(), states.note(slot),
                max(0, states.ejected_until[slot] - now) / 1000, states.is_usable(slot)))
    states.close()
    workers = []
    for row in rows:
        head = layout.row(row)
        if is_alive(cells[head + at.R_PID], cells[head + at.R_START]):
            workers.append(WorkerView(cells[head + at.R_PID], cells[head + at.R_GENERATION],
                                      sum(cells[layout.row_array(row, 0)].tolist())))
    masters = segment.masters()
    controller = cells[at.H_CONTROLLER] if is_alive(cells[at.H_CONTROLLER], cells[at.H_CONTROLLER + 1]) else 0
    return InstanceView(masters[-1] if masters else 0, segment.name, cells[at.H_GENERATION], cells[at.H_RECLAIMED],
                        cells[at.H_REPAIRS], controller, workers, servers)


def _sums(segment: Segment, rows: list[int], array: int, past: int) -> list[int]:
    columns = [segment.cells[segment.layout.row_array(row, array)].tolist() for row in rows]
    columns.append(segment.cells[segment.layout.column(past)].tolist())
    return [sum(values) for values in zip(*columns, strict=True)]
