"""Servers that join and leave pools at run time, for all workers.

A server that was added is in the pool of every worker, whatever configuration the worker has; one that was removed is in none.
`C_STANDING` says so, by one store each, so a process that is killed in a change leaves the pool as it was or as it is to be.
Each change has a number, which the server keeps (`C_MOVED`). A worker compares the number with the one that its view was built
from when the count of changes has moved, and looks at the servers that have moved since.

What has added a server alone removes it (`table.Source`). Discovery and scaling let a server go first: it is drained, so
sessions may end there, and it is removed when nothing is left on it. `C_LEAVING` says so, and keeps the administrative state of
before: it is in force again when the server is wanted again.

A removed server's requests finish, and its slot stays until then and until every worker's pools have taken the change into
account. The slot of one that a configuration names stays longer: it tells workers that start with this configuration that the
server is not wanted. It is back when a master reads its configuration anew (`table.enter`).
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prefork_lb.errors import NotThere, Refused
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import Kind, record_of_server
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import NOT_CHECKED_YET, Admin, States
from prefork_lb.shared.table import ServerEntry, Source, Standing, Table, owner_of, slots_by_key
from prefork_lb.shared.text import fits
from prefork_lb.shared.transitions import Check


class Member(NamedTuple):
    """A server of a pool, or one that has left it at run time."""

    slot: int
    address: str
    rules: ServerEntry
    standing: Standing
    moved: int  # the number of the change by which it last joined or left; 0: there was none
    source: Source = Source.OPERATOR  # of a server that was added


def moved_since(segment: Segment, pool: str, number: int) -> Iterator[Member]:
    """The servers of a pool that have joined or left after the change with this number. The ledger's lock must be held."""
    cells, layout = segment.cells, segment.layout
    for slot, moved in enumerate(cells[layout.column(at.C_MOVED)].tolist()):
        if moved > number:
            owner = owner_of(segment, slot)
            if owner is not None and owner[0] == pool:
                yield member(segment, slot, owner[1])


def members(segment: Segment, pool: str) -> Iterator[Member]:
    """All servers that some worker has in this pool. The ledger's lock must be held."""
    for (of, address), slot in slots_by_key(segment).items():
        if of == pool:
            yield member(segment, slot, address)


def member(segment: Segment, slot: int, address: str) -> Member:
    """What the table says of the server in this slot."""
    weight, limit, backup, standing, moved, source = (
        segment.cells[segment.layout.column(column).start + slot]
        for column in (at.C_WEIGHT, at.C_MAX_CONNECTIONS, at.C_BACKUP, at.C_STANDING, at.C_MOVED, at.C_SOURCE))
    return Member(slot, address, ServerEntry(address, weight, limit, bool(backup)), Standing(standing), moved, Source(source))


def add(segment: Segment, ledger: Ledger, states: States, pool: str, server: ServerEntry, who: str,
        source: Source = Source.OPERATOR) -> int:
    """Let a server join a pool; its slot. `who` did it. The ledger's lock must be held.

    Raises NotThere when there is no such pool, Refused when the server is there already, cannot be of use or has no room.
    """
    table = Table(segment)
    table.free_unused(ledger)
    block = _block(segment, table, pool)
    if block[at.P_NEEDS_PUBLIC]:
        raise Refused(f"pool {pool} sends clients to its servers: a server needs a public address, which only the configuration "
                      "can give")
    if not fits(f"{pool}\n{server.address}"):
        raise Refused(f"{server.address}: longer than the table of servers has room for")
    slot = table.find(pool, server.address)
    if slot is not None and table.is_member(slot):
        raise Refused(f"pool {pool} has the server {server.address} already")
    if slot is not None:
        table.forget(slot)
    elif not table.has_room():
        raise Refused(f"room for {segment.layout.servers} servers only; restart gunicorn to make more")
    else:
        slot = table.take_slot(pool, server.address)
    table.write(slot, server)
    states.source[slot] = source
    first = Check(block[at.P_FIRST_CHECK])
    if first is not Check.NONE:
        states.set_check(slot, first, NOT_CHECKED_YET)
        states.checked[slot] = 0
    block[at.P_REQUESTS] += ledger.requests([slot])  # what it had before is none of the window's requests
    table.appear(slot, Standing.ADDED, _next_number(segment, states))
    record_of_server(segment, slot, Kind.SERVER_ADDED, _in_words(server), who)
    return slot


def remove(segment: Segment, ledger: Ledger, states: States, pool: str, address: str, who: str,
           source: Source = Source.OPERATOR) -> int:
    """Let a server leave a pool: it gets no new request; its slot. `who` did it. The ledger's lock must be held.

    Raises NotThere when there is no such server, Refused when another source has added it, or when no other server would be left
    that is no backup, unless the pool may be empty.
    """
    table = Table(segment)
    block = _block(segment, table, pool)
    slot = table.find(pool, address)
    if slot is None or states.standing[slot] == Standing.REMOVED:
        raise NotThere(f"pool {pool} has no server {address}")
    if (owner := member(segment, slot, address)).standing is Standing.ADDED and owner.source is not source:
        raise Refused(f"{address} comes from {_WORDS[owner.source]}, which would add it again; drain it instead")
    primaries = table.primaries(pool)
    if slot in primaries and len(primaries) == 1 and not block[at.P_MAY_BE_EMPTY]:
        raise Refused(f"{address} is the last server of the pool {pool} that is no backup")
    block[at.P_REQUESTS] -= ledger.requests([slot])
    table.appear(slot, Standing.REMOVED, _next_number(segment, states))
    table.forget(slot)
    record_of_server(segment, slot, Kind.SERVER_REMOVED, f"with {ledger.totals[slot]} in flight", who)
    return slot


def let_go(states: States, slot: int) -> None:
    """Drain a server that its source does not want any more. The ledger's lock must be held."""
    admin = Admin(states.admin[slot])
    if not states.leaving[slot]:
        states.leaving[slot] = admin + 1
    if admin is Admin.READY:
        states.set_admin(slot, Admin.DRAIN)


def keep(states: States, slot: int) -> None:
    """Have a server again that was let go, in its administrative state of before. The ledger's lock must be held."""
    if before := states.leaving[slot]:
        states.set_admin(slot, Admin(before - 1))
        states.leaving[slot] = 0


_WORDS = {Source.OPERATOR: "an operator", Source.DISCOVERY: "discovery", Source.SCALING: "scaling"}


def _in_words(server: ServerEntry) -> str:
    limit = f", max_connections {server.max_connections}" if server.max_connections else ""
    return f"weight {server.weight}{limit}{', backup' if server.backup else ''}"


def _block(segment: Segment, table: Table, pool: str) -> memoryview:
    """The cells of a pool. Raises NotThere."""
    number = table.pool_number(pool)
    if number is None:
        raise NotThere(f"there is no pool {pool}")
    start = segment.layout.pool(number)
    return segment.cells[start:start + at.POOL_HEAD_CELLS]


def _next_number(segment: Segment, states: States) -> int:
    """The number of the change that follows, which workers look at from now on, as soon as the lock is free.

    Counted before the change is made: an exception that comes between the two leaves nothing that a worker would not look at.
    """
    segment.cells[at.H_MEMBERS] += 1
    states.count_change()
    return int(segment.cells[at.H_MEMBERS])
