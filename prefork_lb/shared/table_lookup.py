"""Which server and which pool have which place in the server table, for all who only read it."""
from __future__ import annotations

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import Standing
from prefork_lb.shared.text import read_text


def slots_by_key(segment: Segment) -> dict[tuple[str, str], int]:
    """The slots of all servers that some pool has, by pool and address; may change while the lock is not held."""
    found = {}
    for slot in range(segment.layout.servers):
        key = server_at(segment, slot)
        if key is not None:
            found[key] = slot
    return found


def pool_number(segment: Segment, pool: str) -> int | None:
    """The number of the pool with this name; None: there is none. May change while the lock is not held."""
    cells, layout = segment.cells, segment.layout
    return next((number for number in range(layout.pools) if cells[layout.pool(number) + at.P_USED]
                 and read_text(segment.text, layout.pool_key_byte(number)) == pool), None)


def server_at(segment: Segment, slot: int) -> tuple[str, str] | None:
    """The pool and address of the server in this slot; None if it is free, or was removed. May change while the lock is not
    held."""
    is_removed = segment.cells[segment.layout.cell(at.C_STANDING, slot)] == Standing.REMOVED
    return None if is_removed else owner_of(segment, slot)


def owner_of(segment: Segment, slot: int) -> tuple[str, str] | None:
    """The pool and address of the server that this slot belongs to, be it removed or not; None if it is free."""
    layout = segment.layout
    if not segment.cells[layout.cell(at.C_USED, slot)]:
        return None
    pool, _, address = read_text(segment.text, layout.server_key_byte(slot)).partition("\n")
    return pool, address
