"""nginx's picks for the same keys and servers, for sites that move from it or run beside it.

Sources: nginx, `ngx_http_upstream_get_hash_peer` and `ngx_http_upstream_get_chash_peer` in `ngx_http_upstream_hash_module.c`.
Both go on to another server while the one found cannot be picked, up to 20 times; then, as without a key, nginx takes its
weighted round robin. A server is what nginx has in its configuration: the address as text, the weight, the place in the list.
"""
from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, islice
from zlib import crc32

from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.policy import Candidate, PolicySetup
from prefork_lb.balance.smooth import SmoothWeightedRoundRobin

_TRIES = 21  # the first one, and 20 more
_POINTS = 160  # for each unit of weight


class NginxHash(KeyedPolicy):
    """`hash KEY`: the checksum of the key leads to a place in the list of servers, in which each has as many as its weight."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(SmoothWeightedRoundRobin(setup))
        self.divide(setup.servers, {server.slot: server.configured_weight for server in setup.servers})

    def divide(self, servers: Sequence[Candidate], weights: Mapping[int, int]) -> None:
        self._places = _Places(servers, weights)

    def order(self, key: bytes) -> Iterator[Candidate]:
        total, places = crc32(key) >> 16 & 0x7FFF, self._places
        return chain((places.server(total),), self._others(key, total, places))

    def _others(self, key: bytes, total: int, places: _Places) -> Iterator[Candidate]:
        for number in range(1, _TRIES):
            total += crc32(b"%d%b" % (number, key)) >> 16 & 0x7FFF
            yield places.server(total)


class _Places:
    """A list in which each server has as many places as its weight."""

    def __init__(self, servers: Sequence[Candidate], weights: Mapping[int, int]) -> None:
        self._servers = [server for server in servers if not server.backup]
        self._ends = list(accumulate(weights[server.slot] for server in self._servers))

    def server(self, place: int) -> Candidate:
        return self._servers[bisect_right(self._ends, place % self._ends[-1])]


class NginxKetama(KeyedPolicy):
    """`hash KEY consistent`: ketama, a ring with 160 points for each unit of weight."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(SmoothWeightedRoundRobin(setup))
        self.divide(setup.servers, {server.slot: server.configured_weight for server in setup.servers})

    def divide(self, servers: Sequence[Candidate], weights: Mapping[int, int]) -> None:
        listed = [server for server in servers if not server.backup]
        # One tuple: another thread may be about to look.
        self._ring = (listed, *ketama_ring(tuple((server.name, weights[server.slot]) for server in listed)))

    def order(self, key: bytes) -> Iterator[Candidate]:
        listed, points, owners = self._ring
        begin = bisect_left(points, crc32(key))
        return (listed[number] for number in islice(chain(owners[begin:begin + _TRIES], owners), _TRIES))


@lru_cache(maxsize=4)  # a start makes each policy twice, and great weights take seconds
def ketama_ring(servers: tuple[tuple[str, int], ...]) -> tuple[array[int], array[int]]:
    """The points in ascending order, and the number of each one's server; of servers by name and weight."""
    owners: dict[int, int] = {}
    for number, (name, weight) in enumerate(servers):
        base = crc32(identity(name))
        point = 0
        for _ in range(_POINTS * weight):
            point = crc32(point.to_bytes(4, "little"), base)
            owners.setdefault(point, number)  # which of two servers at one point nginx keeps depends on its sort
    points = array("I", sorted(owners))
    return points, array("H", map(owners.__getitem__, points))


def identity(address: str) -> bytes:
    """HOST, a zero byte, PORT, as Cache::Memcached::Fast has them; the path of a socket, and a zero byte."""
    address = address.partition("://")[2] or address
    if address.startswith("unix:"):
        return address[5:].encode() + b"\0"
    host, colon, port = address.rpartition(":")
    return f"{host}\0{port}".encode() if colon and port.isdigit() else address.encode() + b"\0"
