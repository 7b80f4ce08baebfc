"""A worker with a pool, and an operator, without a gunicorn."""
from __future__ import annotations

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.members import moved_since
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States
from prefork_lb.shared.steering import Steering
from prefork_lb.shared.table import PoolEntry, Standing, enter
from prefork_lb.shared.table_lookup import slots_by_key
from prefork_lb.shared.view import ServerView, view
from tests.unit.shared.saving import entries

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


class Instance:
    """A worker with the pool `web` of A and B, and an operator."""

    def __init__(self, segment: Segment, *pools: PoolEntry) -> None:
        self.segment = segment
        self.ledger = Ledger(segment)
        self.states = States(segment)
        self.steering = Steering(segment, self.ledger, self.states)
        self.enter(*(pools or entries("web")), is_reload=True)

    def enter(self, *pools: PoolEntry, is_reload: bool = False) -> None:
        with self.ledger.locked():
            enter(self.segment, self.ledger, pools, is_reload)

    def new_worker(self, *pools: PoolEntry, is_reload: bool = False) -> Ledger:
        ledger = Ledger(self.segment)
        with ledger.locked():
            enter(self.segment, ledger, pools, is_reload)
        return ledger

    def add(self, address: str, name: str = "web", weight: int = 1, limit: int = 0, backup: bool = False) -> int:
        self.steering.add_server(name, address, weight, limit, backup, who="me")
        return slots_by_key(self.segment)[name, address]

    def remove(self, address: str, name: str = "web") -> int:
        return self.steering.remove_server(name, address, who="me")

    def know_all(self, *ledgers: Ledger) -> None:
        """Every worker has rebuilt its pools."""
        for ledger in ledgers or (self.ledger,):
            ledger.adopt_members(self.segment.cells[at.H_MEMBERS])

    @property
    def servers(self) -> dict[str, ServerView]:
        return {server.address: server for server in view(self.segment).servers}


def moved(instance: Instance, since: int) -> list[tuple[str, Standing]]:
    with instance.ledger.locked():
        return [(each.address, each.standing) for each in moved_since(instance.segment, "web", since)]
