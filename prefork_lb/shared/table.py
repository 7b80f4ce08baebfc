"""The server table: which slot stands for which server of which pool, in shared memory for all workers and tools.

A worker enters the servers of its configuration. A known server keeps its slot, and so its counts; a new server gets a free
slot. After a reload, a server of the old configuration stays until no worker's view names it and it has nothing in flight.
Servers that join or leave a pool at run time (`members`) have slots here, too.
"""
from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from prefork_lb.errors import InvariantError
from prefork_lb.shared import layout as at
from prefork_lb.shared.discovered import write_discovered
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.rows import Rows
from prefork_lb.shared.scaling_state import forget_scaling
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.statistics import start_pool, start_server
from prefork_lb.shared.text import fits, read_text, write_text
from prefork_lb.shared.transitions import Check

MOST_WEIGHT, MOST_CONNECTIONS = 1000, 1_000_000


class Standing(enum.IntEnum):
    """Which workers have a server in their pool."""

    NAMED = 0  # those whose configuration names it
    ADDED = 1  # all: it was added at run time
    REMOVED = 2  # none: it was removed at run time, though a configuration may name it


class AddedBy(enum.IntEnum):
    """What has added a server to its pool at run time, and alone may remove it."""

    OPERATOR = 0
    DISCOVERY = 1
    SCALING = 2


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """A server as a configuration, an operator or a list names it."""

    address: str
    weight: int
    max_connections: int  # 0: no limit
    backup: bool


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A pool as the configuration names it; limits are 0 where there are none."""

    name: str
    servers: Sequence[ServerEntry]
    in_flight: int = 0
    queue_size: int = 0
    retries: int = 0
    first_check: Check = Check.NONE  # the state in which its servers begin
    needs_public: bool = False  # servers need a public address
    may_be_empty: bool = False  # its servers come and go


@dataclass(frozen=True, slots=True)
class PoolSlots:
    """Where a pool lies: a slot for each of its servers, in order, and its policy's memory (cells, and columns by slot)."""

    slots: Sequence[int]
    cells: memoryview
    columns: tuple[memoryview, ...]
    number: int  # of the pool
    block: memoryview  # all cells at the head of the pool's block


def register(segment: Segment, ledger: Ledger, pools: Sequence[PoolEntry]) -> dict[str, PoolSlots]:
    """Enter these pools and servers, and adopt the generation that results. Takes the lock.

    Raises SegmentError, and enters nothing, when there is no room for all of them.
    """
    with ledger.locked():
        return enter(segment, ledger, pools)


def enter(segment: Segment, ledger: Ledger, pools: Sequence[PoolEntry], is_reload: bool = False) -> dict[str, PoolSlots]:
    """Like `register`; the ledger's lock must be held.

    At a reload, servers that were removed at run time are back if the configuration names them, and added ones that it names are
    the configuration's from now on. At other times a worker enters what its siblings have already, and changes neither.
    """
    table = Table(segment)
    table.free_unused(ledger)
    problems = table.problems(pools)
    if problems:
        raise SegmentError(f"{segment.name}: {'; '.join(problems)}")
    if is_reload:
        table.adopt(pools)
    for pool in pools:
        for server in pool.servers:
            table.enter_server(pool.name, server)
        table.enter_pool(pool)
    if table.changed or table.names_more_than(pools):
        segment.cells[at.H_GENERATION] += 1
        segment.cells[at.H_CHANGES] += 1
    generation = segment.cells[at.H_GENERATION]
    table.mark_seen(pools, generation)
    ledger.adopt_generation(generation)
    ledger.adopt_members(segment.cells[at.H_MEMBERS])
    found = {pool.name: table.pool_slots(pool) for pool in pools}
    # Again, with this worker's new generation: if the previous worker has already ended, no later step frees its servers.
    table.free_unused(ledger)
    return found


def problems_of_room(segment: Segment, pools: Sequence[PoolEntry]) -> list[str]:
    """Why these pools and servers cannot be entered beside the present ones; may change while the lock is not held."""
    return Table(segment).problems(pools)


def free_unused(segment: Segment, ledger: Ledger) -> None:
    """Free the slots of servers that no worker's configuration names and that have nothing in flight, and pools without servers.

    Takes the lock only when there is such a server.
    """
    if _has_unused(segment):
        with ledger.locked():
            Table(segment).free_unused(ledger)


def _has_unused(segment: Segment) -> bool:
    """Whether there is a slot that `free_unused` would free. A hint, read without the lock: other processes write meanwhile."""
    cells, layout, rows = segment.cells, segment.layout, Rows(segment)
    oldest, known = rows.oldest_generation(), rows.oldest_members()
    used, seen = (cells[layout.column(column)].tolist() for column in (at.C_USED, at.C_SEEN))
    old = [slot for slot, flag in enumerate(used) if flag and seen[slot] < oldest]
    pools = map(layout.pool, range(layout.pools))
    if any(cells[start + at.P_USED] and cells[start + at.P_SEEN] < oldest for start in pools):
        return True
    return any(_is_unused(oldest, known, *(cells[layout.column(column).start + slot] for column in _SAYS_UNUSED)) for slot in old)


_SAYS_UNUSED = (at.C_SEEN, at.C_STANDING, at.C_MOVED, *at.SUMS)


def _is_unused(oldest: int, known: int, seen: int, standing: int, moved: int, *under_way: int) -> bool:
    """Whether no worker has a server: by its columns, the oldest generation and the changes of membership that all know of."""
    return (seen < oldest and not any(under_way)
            and (standing == Standing.NAMED or standing == Standing.REMOVED and moved <= known))


class Table:
    """The table as one section sees it. The lock must be held during its life."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._cells = segment.cells
        self._layout = layout = segment.layout
        used = segment.cells[layout.column(at.C_USED)]
        self._slots = {read_text(segment.text, layout.server_key_byte(slot)): slot
                       for slot in range(layout.servers) if used[slot]}
        self._pools = {read_text(segment.text, layout.pool_key_byte(number)): number
                       for number in range(layout.pools) if segment.cells[layout.pool(number) + at.P_USED]}
        self._first_free = 0  # no slot before this one is free
        self.changed = False

    def free_unused(self, ledger: Ledger) -> None:
        rows = Rows(self._segment)
        oldest, known = rows.oldest_generation(), rows.oldest_members()
        for key, slot in list(self._slots.items()):
            if _is_unused(oldest, known, *(self._get(column, slot) for column in _SAYS_UNUSED)):
                self._set(at.C_USED, slot, 0)
                del self._slots[key]
                self._first_free = 0
        in_use = {key.partition("\n")[0] for key in self._slots}
        for name in self._pools.keys() - in_use:
            start = self._layout.pool(self._pools[name])
            if self._cells[start + at.P_SEEN] < oldest:
                self._cells[start + at.P_USED] = 0
                del self._pools[name]

    def problems(self, pools: Sequence[PoolEntry]) -> list[str]:
        """Why these pools and servers cannot be entered; empty when they can."""
        named = {_key(pool.name, server.address) for pool in pools for server in pool.servers}
        servers = named - self._slots.keys()
        names = {pool.name for pool in pools} - self._pools.keys()
        free_slots = sum(self._is_free(slot) for slot in range(self._layout.servers))
        free_pools = sum(not self._cells[self._layout.pool(number) + at.P_USED] for number in range(self._layout.pools))
        found = [f"{text!r}: longer than the {at.KEY_BYTES - 1} bytes that the server table has for a name"
                 for text in (*servers, *names) if not fits(text)]
        for kind, (what, room, free, wanted) in enumerate((("servers", self._layout.servers, free_slots, len(servers)),
                                                           ("pools", self._layout.pools, free_pools, len(names)))):
            if wanted > free:
                kept = self._kept_for_lingering(named)[kind]
                way_out = "restart gunicorn to make more" if wanted > free + kept else (
                    f"{kept} of them are kept for replaced workers that linger: reload again when these workers have ended")
                found.append(f"room for {room} {what} only; {way_out} ({room - free} are in use, {wanted} new ones are wanted)")
        return found

    def _kept_for_lingering(self, named: set[str]) -> tuple[int, int]:
        """How many servers, and how many pools, are neither `named` nor in use by a worker that does not linger."""
        kept = {key for key, slot in self._slots.items()
                if self._get(at.C_SEEN, slot) < self._oldest and self._get(at.C_STANDING, slot) != Standing.ADDED} - named
        others = {key.partition("\n")[0] for key in (self._slots.keys() - kept) | named}
        return len(kept), len(self._pools.keys() - others)

    def names_more_than(self, pools: Sequence[PoolEntry]) -> bool:
        """Whether the current generation names a server or a pool that is not among `pools`.

        It needs a new generation then: in the current one it would count as named for ever.
        """
        named = {_key(pool.name, server.address) for pool in pools for server in pool.servers}
        current = self._cells[at.H_GENERATION]
        names = {pool.name for pool in pools}
        return (any(self._get(at.C_SEEN, slot) == current for key, slot in self._slots.items() if key not in named)
                or any(self._cells[self._layout.pool(number) + at.P_SEEN] == current
                       for name, number in self._pools.items() if name not in names))

    def adopt(self, pools: Sequence[PoolEntry]) -> None:
        """Let a configuration that was just read decide on the servers that it names, and on pools that it leaves out.

        Servers that were added to such a pool go with it: workers that have them keep them.
        """
        named = {_key(pool.name, server.address) for pool in pools for server in pool.servers}
        names = {pool.name for pool in pools}
        moves, states = self._cells[at.H_MEMBERS] + 1, States(self._segment)
        for key, slot in self._slots.items():
            standing = self._get(at.C_STANDING, slot)
            if key in named and standing == Standing.REMOVED:
                self.forget(slot)
                self._cells[at.H_MEMBERS] = moves
                self._cells[at.H_CHANGES] += 1
                self.appear(slot, Standing.NAMED, moves)
                self.changed = True
            elif standing == Standing.ADDED and (key in named or key.partition("\n")[0] not in names):
                self._set(at.C_SEEN, slot, self._cells[at.H_GENERATION])  # as if the one before had named it
                if key in named:
                    states.keep(slot)
                self._set(at.C_STANDING, slot, Standing.NAMED)
                self.changed = True

    def enter_server(self, pool: str, server: ServerEntry) -> None:
        slot = self.find(pool, server.address)
        if slot is None:
            slot = self.take_slot(pool, server.address)
            self.write(slot, server)
            self._set(at.C_USED, slot, 1)
            self.changed = True
        elif self._get(at.C_STANDING, slot) == Standing.NAMED and self.write(slot, server):
            self.changed = True

    def find(self, pool: str, address: str) -> int | None:
        """The slot of a server that some worker has, or had and that was removed; None: there is none."""
        return self._slots.get(_key(pool, address))

    def pool_number(self, pool: str) -> int | None:
        """The number of the pool with this name; None: there is none."""
        return self._pools.get(pool)

    def has_room(self) -> bool:
        """Whether there is a slot for one more server."""
        while self._first_free < self._layout.servers and not self._is_free(self._first_free):
            self._first_free += 1
        return self._first_free < self._layout.servers

    def take_slot(self, pool: str, address: str) -> int:
        """A slot for a new server of this pool, which holds nothing of the one before. The server appears with `C_USED`."""
        if not self.has_room():
            raise InvariantError("no slot is free; `problems` or `has_room` was not asked")
        slot = self._first_free
        key = _key(pool, address)
        write_text(self._segment.text, self._layout.server_key_byte(slot), key)
        for column in range(at.SERVER_COLUMNS):
            if column not in (at.C_TOTAL, at.C_PENALTY, at.C_UNANSWERED):
                self._set(column, slot, 0)
        Rows(self._segment).forget(slot)
        start_server(self._segment, slot)
        if pool in self._pools:
            self._rise(slot)  # one more beside others that run already
        self._slots[key] = slot
        return slot

    def forget(self, slot: int) -> None:
        """Forget what a pool and its policy knew of a server, but not its statistics: whoever has the slot next begins anew."""
        for column in (*at.POLICY_COLUMNS, *at.STATE_COLUMNS):
            self._set(column, slot, 0)
        self._rise(slot)

    def _rise(self, slot: int) -> None:
        self._set(at.C_RISEN, slot, now_ms())
        self._set(at.C_RISEN_CHANGE, slot, self._cells[at.H_CHANGES] + 1)

    def appear(self, slot: int, standing: Standing, moves: int) -> None:
        """Let a server join or leave its pool, as the change of membership with this number: by the last store."""
        self._set(at.C_MOVED, slot, moves)
        self._set(at.C_STANDING, slot, standing)
        self._set(at.C_USED, slot, 1)

    def is_member(self, slot: int) -> bool:
        """Whether workers that do not linger have the server."""
        standing = self._get(at.C_STANDING, slot)
        return standing == Standing.ADDED or standing == Standing.NAMED and self._get(at.C_SEEN, slot) >= self._oldest

    @functools.cached_property
    def _oldest(self) -> int:
        """The oldest generation that a worker's view was built from that does not linger."""
        return Rows(self._segment).oldest_generation(with_lingering=False)

    def servers(self, pool: str) -> dict[str, int]:
        """The slots of a pool's servers that workers have, by address."""
        own = _key(pool, "")
        return {key[len(own):]: slot for key, slot in self._slots.items() if key.startswith(own) and self.is_member(slot)}

    def primaries(self, pool: str) -> list[int]:
        """The slots of those that are no backups."""
        return [slot for slot in self.servers(pool).values() if not self._get(at.C_BACKUP, slot)]

    def write(self, slot: int, server: ServerEntry) -> bool:
        """Write a server's rules; whether they were others."""
        is_changed = False
        for column, value in ((at.C_WEIGHT, server.weight), (at.C_MAX_CONNECTIONS, server.max_connections),
                              (at.C_BACKUP, int(server.backup))):
            if self._get(column, slot) != value:
                self._set(column, slot, value)
                is_changed = True
        return is_changed

    def enter_pool(self, pool: PoolEntry) -> None:
        number = self._pools.get(pool.name)
        if number is None:
            number = self._pools[pool.name] = self._free_pool()
            start = self._layout.pool(number)
            write_text(self._segment.text, self._layout.pool_key_byte(number), pool.name)
            for cell in range(start, start + at.POOL_HEAD_CELLS):
                self._cells[cell] = 0
            forget_scaling(self._segment, number)
            write_discovered(self._segment, number, None)
            start_pool(self._segment, number)
            self._cells[start + at.P_USED] = 1
            self.changed = True
        start = self._layout.pool(number)
        for cell, value in ((at.P_LIMIT, pool.in_flight), (at.P_QUEUE_SIZE, pool.queue_size), (at.P_RETRY_LIMIT, pool.retries),
                            (at.P_FIRST_CHECK, pool.first_check), (at.P_NEEDS_PUBLIC, int(pool.needs_public)),
                            (at.P_MAY_BE_EMPTY, int(pool.may_be_empty))):
            self._cells[start + cell] = value

    def _free_pool(self) -> int:
        return next(number for number in range(self._layout.pools) if not self._cells[self._layout.pool(number) + at.P_USED])

    def mark_seen(self, pools: Sequence[PoolEntry], generation: int) -> None:
        for pool in pools:
            self._cells[self._layout.pool(self._pools[pool.name]) + at.P_SEEN] = generation
            for server in pool.servers:
                self._set(at.C_SEEN, self._slots[_key(pool.name, server.address)], generation)

    def pool_slots(self, pool: PoolEntry) -> PoolSlots:
        number = self._pools[pool.name]
        start = self._layout.pool(number)
        return PoolSlots(
            [self._slots[_key(pool.name, server.address)] for server in pool.servers], number=number,
            block=self._cells[start:start + at.POOL_HEAD_CELLS],
            cells=self._cells[start:start + at.POLICY_CELLS],
            columns=tuple(self._cells[self._layout.column(column)] for column in (*at.POLICY_COLUMNS, at.C_UNANSWERED)))

    def _is_free(self, slot: int) -> bool:
        return not self._get(at.C_USED, slot) and not self._get(at.C_TOTAL, slot)

    def _get(self, column: int, slot: int) -> int:
        return int(self._cells[self._layout.cell(column, slot)])

    def _set(self, column: int, slot: int, value: int) -> None:
        self._cells[self._layout.cell(column, slot)] = value


def _key(pool: str, address: str) -> str:
    return f"{pool}\n{address}"
