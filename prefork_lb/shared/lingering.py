"""The lingering workers of an instance, as a gunicorn master sees them."""
from __future__ import annotations

from typing import NamedTuple

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import find
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.segment import SegmentError


class LingeringWorker(NamedTuple):
    """A worker that was replaced and still serves its open connections."""

    pid: int
    started: int  # see `identity`

    def is_running(self) -> bool:
        """Whether the worker still runs."""
        return is_alive(self.pid, self.started)


def lingering_workers(master: int) -> list[LingeringWorker]:
    """The lingering workers of this gunicorn master's instance; empty when the master has no instance."""
    try:
        segment = find(master)
    except SegmentError:
        return []
    if segment is None:
        return []
    cells, layout = segment.cells, segment.layout
    heads = [layout.row(row) for row in range(layout.rows)]
    found = [LingeringWorker(cells[head + at.R_PID], cells[head + at.R_START]) for head in heads if cells[head + at.R_LINGERS]]
    segment.close()
    return [worker for worker in found if worker.is_running()]
