"""Hash: the same server for the same key, for as long as it can be picked."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.least_connections import LeastConnections
from prefork_lb.balance.policy import Candidate, PolicySetup
from prefork_lb.balance.rendezvous import Rendezvous


class Hash(KeyedPolicy):
    """Keys are divided by weight (`balance.rendezvous`); slow start does not move them.

    When a server cannot be picked, each of its keys goes to the server that is next for that key, the same in all workers, and
    comes back later. A request without a key goes to the server with the least connections.
    """

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(LeastConnections(setup))
        self.divide(setup.servers, {server.slot: server.configured_weight for server in setup.servers})

    def divide(self, servers: Sequence[Candidate], weights: Mapping[int, int]) -> None:
        self._primaries = Rendezvous([server for server in servers if not server.backup], weights)
        self._backups = Rendezvous([server for server in servers if server.backup], weights)

    def order(self, key: bytes) -> Iterator[Candidate]:
        return self._primaries.order(key)

    def backup_order(self, key: bytes) -> Iterator[Candidate]:
        return self._backups.order(key)
