"""Which servers a pool has, as one worker sees it: those of its configuration, and those that came or went at run time."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import Member, members, moved_since
from prefork_lb.shared.table import Standing
from prefork_lb.upstream.server import Server

MakeServer = Callable[[Member], Server | None]
"""Makes a server of this pool; None, and the log says why, when it cannot be used."""


class Roster:
    """Of one pool, in one worker. No two threads may look at once.

    A server that is here stays the same object for as long as it does not leave: one that was removed and added again is another.
    """

    def __init__(self, pool: str, ledger: Ledger, configured: Sequence[Server], make_server: MakeServer,
                 may_be_empty: bool = False) -> None:
        """`configured` are the servers that the worker's configuration names, in its order. `may_be_empty`: its servers come and
        go, so it never takes those of another configuration for want of its own."""
        self._pool = pool
        self._ledger = ledger
        self._make_server = make_server
        self._may_be_empty = may_be_empty
        self._order = {server.name: number for number, server in enumerate(configured)}
        # By slot: the server, and where it stands among the others. The order is the same in all workers of a configuration.
        self._places = {server.slot: ((number, 0), server) for number, server in enumerate(configured)}
        self.seen = 0  # the changes of membership that are taken into account
        self.servers: tuple[Server, ...] = ()
        self.present: frozenset[Server] = frozenset()  # the same
        self._leaving: frozenset[Server] = frozenset()  # have left, and this worker has requests on them
        self.look()

    @property
    def is_current(self) -> bool:
        """Whether nothing has changed since the last look. Needs no lock."""
        return self.seen == self._ledger.segment.cells[at.H_MEMBERS]

    def look(self) -> None:
        """Take over what has changed. Takes the ledger's lock."""
        segment, pool = self._ledger.segment, self._pool
        with self._ledger.locked():
            seen = segment.cells[at.H_MEMBERS]
            moved = list(moved_since(segment, pool, self.seen))
        for member in moved:
            self._places.pop(member.slot, None)
            if member.standing is Standing.ADDED or (member.standing is Standing.NAMED and member.address in self._order):
                self._place(member)
        if not self._may_be_empty and not any(not server.backup for _, server in self._places.values()):
            # All that this configuration names have gone. A newer one names others: better one of those than none.
            with self._ledger.locked():
                others = [member for member in members(segment, pool) if member.slot not in self._places]
            for member in others:
                self._place(member)
        self.seen = seen
        self.servers = tuple(server for _, server in sorted(self._places.values(), key=lambda place: place[0]))
        before, self.present = self.present, frozenset(self.servers)
        self._leaving |= before - self.present
        for server in self._leaving:
            server.idle.end()

    def tick(self) -> None:
        """Close connections that are idle for too long, and what requests on servers that have left gave back."""
        for server in self.servers:
            server.idle.expire()
            if server.own_queue is not None:
                server.own_queue.tick()
        for server in self._leaving:
            is_idle = not self._ledger.has_claims(server.slot)
            server.idle.close()  # after that: a request gives its connection back before its claim
            if server.own_queue is not None:
                server.own_queue.tick()
            if is_idle and (server.own_queue is None or not server.own_queue.length):
                self._leaving -= {server}

    def close(self) -> None:
        """Close all idle connections."""
        for server in self.present | self._leaving:
            server.idle.close()
            if server.own_queue is not None:
                server.own_queue.close()

    def _place(self, member: Member) -> None:
        server = self._make_server(member)
        if server is not None:
            self._places[member.slot] = (self._order.get(member.address, len(self._order)), member.moved), server
