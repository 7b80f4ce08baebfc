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

from prefork_lb.errors import NoRoom, NotThere, Refused
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import EventKind, record_server_event
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import NOT_CHECKED_YET, States
from prefork_lb.shared.table import AddedBy, ServerEntry, Standing, Table
from prefork_lb.shared.table_lookup import owner_of, slots_by_key
from prefork_lb.shared.text import fits
from prefork_lb.shared.transitions import Check


class Member(NamedTuple):
    """A server of a pool, or one that has left it at run time."""

    slot: int
    address: str
    rules: ServerEntry
    standing: Standing
    moved: int  # the number of the change by which it last joined or left; 0: there was none
    source: AddedBy = AddedBy.OPERATOR  # of a server that was added


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
        segment.cells[segment.layout.cell(column, slot)]
        for column in (at.C_WEIGHT, at.C_MAX_CONNECTIONS, at.C_BACKUP, at.C_STANDING, at.C_MOVED, at.C_SOURCE))
    return Member(slot, address, ServerEntry(address, weight, limit, bool(backup)), Standing(standing), moved, AddedBy(source))


class Changes:
    """Changes of one pool's servers, as one section sees them. The ledger's lock must be held during its life."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, pool: str) -> None:
        """Raises NotThere when there is no such pool."""
        self._segment, self._ledger, self._states, self._pool = segment, ledger, states, pool
        self.table = Table(segment)
        self.table.free_unused(ledger)
        number = self.table.pool_number(pool)
        if number is None:
            raise NotThere(f"there is no pool {pool}")
        start = segment.layout.pool(number)
        self._block = segment.cells[start:start + at.POOL_HEAD_CELLS]

    def add(self, server: ServerEntry, who: str, source: AddedBy = AddedBy.OPERATOR) -> int:
        """Let a server join the pool; its slot. `who` did it.

        Raises Refused when the server is there already, cannot be of use or has no room.
        """
        table, states, block = self.table, self._states, self._block
        if block[at.P_NEEDS_PUBLIC]:
            raise Refused(f"pool {self._pool} sends clients to its servers: a server needs a public address, which only the "
                          "configuration can give")
        if not fits(f"{self._pool}\n{server.address}"):
            raise Refused(f"{server.address}: longer than the table of servers has room for")
        slot = table.find(self._pool, server.address)
        if slot is not None and table.is_member(slot):
            raise Refused(f"pool {self._pool} has the server {server.address} already")
        if slot is not None:
            block[at.P_REQUESTS] += self._ledger.requests([slot])  # what it had before is none of the window's requests
            table.forget(slot)
        elif not table.has_room():
            raise NoRoom(f"room for {self._segment.layout.servers} servers only; restart gunicorn to make more")
        else:
            slot = table.take_slot(self._pool, server.address)
        table.write(slot, server)
        states.source[slot] = source
        first = Check(block[at.P_FIRST_CHECK])
        if first is not Check.NONE:
            states.set_check(slot, first, NOT_CHECKED_YET)
            states.checked[slot] = 0
        table.appear(slot, Standing.ADDED, self._next_number())
        self._tell(slot, EventKind.SERVER_ADDED, _in_words(server), who, source)
        return slot

    def change(self, slot: int, rules: ServerEntry) -> None:
        """Give a server that was added other rules."""
        # The number first: a kill in between leaves rules that differ from those that are wanted, which the next look changes.
        self._states.moved[slot] = self._next_number()
        self.table.write(slot, rules)

    def remove(self, address: str, who: str, source: AddedBy = AddedBy.OPERATOR) -> int:
        """Let a server leave the pool: it gets no new request; its slot. `who` did it.

        Raises NotThere when there is no such server, Refused when another source has added it, or when no other server would be
        left that is no backup, unless the pool may be empty.
        """
        table, pool = self.table, self._pool
        slot = table.find(pool, address)
        if slot is None or self._states.standing[slot] == Standing.REMOVED:
            raise NotThere(f"pool {pool} has no server {address}")
        if (owner := member(self._segment, slot, address)).standing is Standing.ADDED and owner.source is not source:
            raise Refused(f"{address} comes from {_WORDS[owner.source]}, which would add it again; drain it instead")
        if not self._block[at.P_MAY_BE_EMPTY] and table.primaries(pool) == [slot]:
            raise Refused(f"{address} is the last server of the pool {pool} that is no backup")
        self._block[at.P_REQUESTS] -= self._ledger.requests([slot])
        table.appear(slot, Standing.REMOVED, self._next_number())
        table.forget(slot)
        self._tell(slot, EventKind.SERVER_REMOVED, f"with {self._ledger.totals[slot]} in flight", who, source)
        return slot

    def _tell(self, slot: int, kind: EventKind, text: str, who: str, source: AddedBy) -> None:
        if source is not AddedBy.DISCOVERY:  # which tells of many at once
            record_server_event(self._segment, slot, kind, text, who)

    def _next_number(self) -> int:
        """The number of the change that follows, which workers look at from now on, as soon as the lock is free.

        Counted before the change is made: an exception that comes between the two leaves nothing that a worker would not look at.
        """
        self._segment.cells[at.H_MEMBERS] += 1
        self._states.count_change()
        return int(self._segment.cells[at.H_MEMBERS])


_WORDS = {AddedBy.OPERATOR: "an operator", AddedBy.DISCOVERY: "discovery", AddedBy.SCALING: "scaling"}


def _in_words(server: ServerEntry) -> str:
    limit = f", max_connections {server.max_connections}" if server.max_connections else ""
    return f"weight {server.weight}{limit}{', backup' if server.backup else ''}"
