"""Changes of a running instance: states, weights, servers that come and go. For commands and the admin interface alike.

A change is made under the ledger's lock, whole or not at all, and is in force for all workers at their next pick.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefork_lb.errors import BadValue, NotThere, shown
from prefork_lb.net.address import parse_address
from prefork_lb.shared import members
from prefork_lb.shared.events import Kind, record_of_server
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States
from prefork_lb.shared.table import ServerEntry, owner_of, slots_by_key

MOST_WEIGHT, MOST_CONNECTIONS = 1000, 1_000_000
_DEFAULT = "that of the configuration"


class Steering:
    """What operators do to one instance. `who` names the operator: a user, or a token of the admin interface.

    Servers are named by pool and address, in any spelling of the address. Raises NotThere when there is no such server or pool.
    """

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment = segment
        self._ledger = ledger
        self._states = states

    def set_admin(self, pool: str, address: str, state: Admin, who: str) -> None:
        """Set the administrative state."""
        with self._server(pool, address) as slot:
            before = Admin(self._states.admin[slot])
            self._states.set_admin(slot, state)
            if before is not state:
                record_of_server(self._segment, slot, Kind.ADMIN, f"{state.name.lower()}, before: {before.name.lower()}", who)

    def set_weight(self, pool: str, address: str, weight: int | None, who: str) -> None:
        """Set the weight; None: that of the configuration. Raises BadValue."""
        if weight is not None:
            _check(weight, 1, MOST_WEIGHT, "weight")
        with self._server(pool, address) as slot:
            before = self._states.weight_set[slot] or None
            self._states.set_weight(slot, weight or 0)
            if before != weight:
                record_of_server(self._segment, slot, Kind.WEIGHT, f"{weight or _DEFAULT}, before: {before or _DEFAULT}", who)

    def add_server(self, pool: str, address: str, weight: int = 1, max_connections: int = 0, backup: bool = False, *,
                   who: str) -> str:
        """Add a server to a pool; its address as the table has it. 0 connections: no limit.

        Raises BadValue, and Refused when it is there already, needs what only a configuration can give, or there is no room.
        """
        _check(weight, 1, MOST_WEIGHT, "weight")
        _check(max_connections, 0, MOST_CONNECTIONS, "max_connections")
        name = _canonical(address)
        with self._ledger.locked():
            name = self._spelling(pool, name)
            members.add(self._segment, self._ledger, self._states, pool, ServerEntry(name, weight, max_connections, backup),
                        who)
        return name

    def remove_server(self, pool: str, address: str, *, who: str) -> int:
        """Remove a server from a pool: it gets no new request, and those that it has finish. Its slot, where they are counted
        for as long as `table.owner_of` says that the slot is its own.

        Raises Refused for the last server of a pool that is no backup.
        """
        name = _canonical(address)
        with self._ledger.locked():
            return members.remove(self._segment, self._ledger, self._states, pool, self._spelling(pool, name), who)

    @contextmanager
    def _server(self, pool: str, address: str) -> Iterator[int]:
        """The slot of a server, under the lock."""
        name = _canonical(address)
        with self._ledger.locked():
            slot = slots_by_key(self._segment).get((pool, self._spelling(pool, name)))
            if slot is None:
                raise NotThere(f"pool {pool} has no server {address}")
            yield slot

    def _spelling(self, pool: str, name: str) -> str:
        """How the table writes the address of this server, be it in the pool or removed. The lock must be held."""
        owners = (owner_of(self._segment, slot) for slot in range(self._segment.layout.servers))
        addresses = [owner[1] for owner in owners if owner is not None and owner[0] == pool]
        return name if name in addresses else next((each for each in addresses if _canonical(each) == name), name)


def _canonical(address: str) -> str:
    """The one spelling of an address. Raises BadValue."""
    try:
        return str(parse_address(address))
    except ValueError as exc:
        raise BadValue(str(exc)) from exc


def _check(value: int, least: int, most: int, what: str) -> None:
    if not least <= value <= most:
        raise BadValue(f"{shown(value)} is no {what}; expected {least} to {most}")
