"""The requests that a pool's limits refuse: their number, and an event when they begin."""
from __future__ import annotations

from prefork_lb.shared import layout as at
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import now_ms
from prefork_lb.shared.text import read_text

_QUIET_MS = 1000


def count_refusal(segment: Segment, pool: int, text: str) -> None:
    """Count what a limit of the pool with this number has refused. The ledger's lock must be held.

    Refusals without a pause of a second are one event, with the first one's `text`.
    """
    cells, block, now = segment.cells, segment.layout.pool(pool), now_ms()
    cells[block + at.P_REFUSED] += 1
    last, cells[block + at.P_REFUSED_AT] = cells[block + at.P_REFUSED_AT], now
    if now - last > _QUIET_MS or not last:
        record_event(segment, EventKind.LIMIT_REACHED, text, read_text(segment.text, segment.layout.pool_key_byte(pool)))
