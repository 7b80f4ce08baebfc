"""The last events of an instance: what changed, when, why and by whom. A ring in shared memory, for commands and tools.

An event is written under the ledger's lock, where the state changes that it tells of. Its number goes into the header last. So
the entry of a writer that is killed is never read, and the next writer uses it again. A reader takes no lock. It may read an
entry while a later event overwrites it, so an entry has its number and a checksum.
"""
from __future__ import annotations

import enum
import os
import time
import zlib
from dataclasses import dataclass

from prefork_lb.errors import printable
from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.text import read_text

_BETWEEN = "\n"
_WHO_CHARACTERS = 40
_CUT = "…".encode()


class EventKind(enum.StrEnum):
    """What happened."""

    SERVER_UP = "server-up"
    SERVER_DOWN = "server-down"
    SERVER_EJECTED = "server-ejected"
    SERVER_TRIAL = "server-trial"
    SERVER_RETURNED = "server-returned"
    ADMIN = "admin"  # an operator has set a server's state
    WEIGHT = "weight"
    LIMIT = "limit"
    SPLIT = "split"  # an operator has set weights of a route's split
    SERVER_ADDED = "server-added"
    SERVER_REMOVED = "server-removed"
    RELOAD = "reload"
    WORKER_STARTED = "worker-started"
    WORKER_ENDED = "worker-ended"
    WORKER_DIED = "worker-died"
    CONTROLLER_STARTED = "controller-started"
    LIMIT_REACHED = "limit-reached"
    SCALED = "scaled"  # a pool is to have more servers or fewer
    STARTED = "started"  # a server that the balancer starts itself
    EXITED = "exited"  # one that ended though it should not
    GIVEN_UP = "given-up"  # one that is not started again for a while
    ROLLED = "rolled"  # all of a pool were replaced, or were not
    DISCOVERED = "discovered"  # servers have joined or left a pool since a list says so
    DISCOVERY_FAILED = "discovery-failed"  # a pool's list is not to be had, or not believed
    BALANCER_JOINED = "balancer-joined"  # another one shares with this one, or this one with others
    BALANCER_LEFT = "balancer-left"
    AUDIT = "audit"  # any other deed of an operator


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `pool`, `server` and `who` are empty where there is none."""

    seq: int  # counts from 1, without gaps
    at: float  # seconds since the epoch
    kind: str  # an `EventKind`
    pool: str
    server: str
    text: str  # in plain words, with the reason
    who: str  # an operator's name, "controller" or "worker PID"


def record_event(segment: Segment, kind: EventKind, text: str, pool: str = "", server: str = "", who: str = "") -> None:
    """Add an event. The ledger's lock must be held. `text` is cut where it is too long."""
    cells = segment.cells
    number = cells[at.H_EVENTS] + 1
    entry = _entry(number)
    data = _BETWEEN.join(map(printable, (kind, pool, server, who[:_WHO_CHARACTERS], text))).encode(errors="replace")
    if len(data) > at.EVENT_TEXT_BYTES:
        data = data[:at.EVENT_TEXT_BYTES - len(_CUT)].decode(errors="ignore").encode() + _CUT
    cells[entry + at.V_NUMBER] = 0
    start = (entry + at.V_TEXT) * at.CELL
    segment.text[start:start + len(data)] = data
    cells[entry + at.V_AT] = time.time_ns() // 1_000_000
    cells[entry + at.V_CHECK] = _check(data)
    cells[entry + at.V_NUMBER] = number
    cells[at.H_EVENTS] = number


def record_server_event(segment: Segment, slot: int, kind: EventKind, text: str, who: str = "") -> None:
    """Like `record_event`, of the server in this slot. Without `who` this process did it."""
    pool, _, address = read_text(segment.text, segment.layout.server_key_byte(slot)).partition("\n")
    record_event(segment, kind, text, pool, address, who or this_process(segment))


def this_process(segment: Segment) -> str:
    """This process as events name it."""
    pid = os.getpid()
    return "controller" if pid == segment.cells[at.H_CONTROLLER] else f"worker {pid}"


def last(segment: Segment) -> int:
    """The number of the last event; 0 when there is none. Needs no lock."""
    return segment.cells[at.H_EVENTS]


def recent(segment: Segment, after: int = 0, limit: int = at.EVENTS) -> list[Event]:
    """The newest events with a number above `after`, `limit` at most, oldest first. Needs no lock."""
    newest = last(segment)
    first = max(after, newest - min(limit, at.EVENTS), 0) + 1
    found = (_read(segment, number) for number in range(first, newest + 1))
    return [event for event in found if event is not None]


def _read(segment: Segment, number: int) -> Event | None:
    """The event with this number; None when a later one is written over it."""
    cells, entry = segment.cells, _entry(number)
    when, check = cells[entry + at.V_AT], cells[entry + at.V_CHECK]
    start = (entry + at.V_TEXT) * at.CELL
    data = bytes(segment.text[start:start + (check >> 32)])
    if cells[entry + at.V_NUMBER] != number or _check(data) != check:
        return None
    kind, pool, server, who, text = data.decode(errors="replace").split(_BETWEEN)
    return Event(number, when / 1000, kind, pool, server, text, who)


def _entry(number: int) -> int:
    """The first cell of the entry of an event."""
    return at.HEADER_CELLS + number % at.EVENTS * at.EVENT_CELLS


def _check(data: bytes) -> int:
    """The length of the text, and its checksum."""
    return len(data) << 32 | zlib.crc32(data)
