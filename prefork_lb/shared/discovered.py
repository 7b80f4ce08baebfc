"""How the discovery of each pool goes, in shared memory. The controller writes it; tools read it without the lock."""
from __future__ import annotations

import enum
from dataclasses import dataclass

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.text import read_note, write_note


class DiscoveryState(enum.IntEnum):
    """How the last look at a list went."""

    NONE = 0  # the pool discovers nothing
    WAITING = 1  # there was no look yet
    GOOD = 2
    FAILING = 3


@dataclass(frozen=True, slots=True)
class Discovered:
    """What is known of a pool's list."""

    state: DiscoveryState
    good_at: float  # when there was a good list last, in seconds since the epoch; 0: there was none
    servers: int  # in that list
    error: str  # why the last look failed, or servers of the list are not in the pool; empty: all is well


def discovered_of(segment: Segment, number: int) -> Discovered | None:
    """How the discovery of the pool with this number goes; None: it discovers nothing."""
    start = segment.layout.pool_discovery(number)
    state, good_at, servers = segment.cells[start:start + at.D_SERVERS + 1].tolist()
    if state == DiscoveryState.NONE:
        return None
    return Discovered(DiscoveryState(state), good_at / 1000, servers,
                      read_note(segment.text, segment.layout.discovery_note_byte(number)))


def write_discovered(segment: Segment, number: int, found: Discovered | None) -> None:
    """Let tools know; None: the pool discovers nothing. The ledger's lock must be held."""
    start = segment.layout.pool_discovery(number)
    if found is not None:
        write_note(segment.text, segment.layout.discovery_note_byte(number), found.error)
        segment.cells[start + at.D_GOOD_AT] = int(found.good_at * 1000)
        segment.cells[start + at.D_SERVERS] = found.servers
    segment.cells[start + at.D_STATE] = DiscoveryState.NONE if found is None else found.state
