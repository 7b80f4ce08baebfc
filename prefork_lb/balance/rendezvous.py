"""Which server a key belongs to, and which servers come next when that one cannot be taken: rendezvous hashing.

For each key every server gets a score, from the key and the server's name alone; the best score wins (Thaler and Ravishankar,
"Using Name-Based Mappings to Increase Hit Rates", 1998). So a server that goes takes only its own keys with it, and each of them
goes to the server that was second for it. A new one takes keys from all others, and none moves between those. Weights are exact:
the score is -ln(u) / weight, u between 0 and 1, and the smallest one wins (Schindelhauer and Schomaker, "Weighted Distributed
Hash Tables", 2005). Nothing depends on the order of the servers.

To score 100 servers takes 40 us. Therefore keys fall into 65,536 parts, and the best servers of a part are remembered once they
were asked for: a look-up then takes 1 us, and all workers find the same without a word between them. A ring with points for each
server was weighed: it needs 1,000 points for each unit of weight for shares as even as these, hence seconds and megabytes where
weights are like 100 and 200; and its build has to be done whole, before the first request.
"""
from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import log
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from prefork_lb.balance.policy import Candidate

C = TypeVar("C", bound=Candidate)

PARTS = 1 << 16
_REMEMBERED = 8  # servers of each part, which takes 1 MiB; more are seldom asked for, with bounded load on busy servers
_RANKINGS = 64
_UNKNOWN = 0xFFFF
_MASK = (1 << 64) - 1
_ODD = 0xD6E8FEB86659FD93  # a multiplier that mixes well; a test holds the shares and the second servers to chance


class Rendezvous(Generic[C]):
    """The servers in the order in which they are preferred for a key."""

    def __init__(self, servers: Sequence[C], weights: Mapping[int, int] | None = None) -> None:
        """`servers` count by `name` and by their weight in `weights`, by slot; None: by `configured_weight`.

        What is remembered is shared with others of the same servers and weights.
        """
        ranked = sorted(servers, key=lambda server: server.name)
        self._servers = ranked
        self._parts = _parts(tuple(
            (server.name, server.configured_weight if weights is None else weights[server.slot]) for server in ranked))

    def order(self, key: bytes) -> Iterator[C]:
        """All servers, the preferred one first. What is dear is done at once, not when the servers are asked for."""
        part = int.from_bytes(blake2b(key, digest_size=2).digest(), "little")
        return self._walk(part, self._parts.best(part))

    def _walk(self, part: int, best: Sequence[int]) -> Iterator[C]:
        servers = self._servers
        for number in best:
            yield servers[number]
        if len(best) < len(servers):
            for number in self._parts.ranking(part)[len(best):]:
                yield servers[number]


class _Parts:
    """The best servers of each part, by their numbers."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        self._seeds = [int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") for name, _ in servers]
        self._weights = [weight for _, weight in servers]
        self._equal = len(set(self._weights)) < 2
        self._width = min(_REMEMBERED, len(servers))
        self._best = array("H", [_UNKNOWN]) * (self._width * PARTS)
        self._rankings: dict[int, list[int]] = {}

    def best(self, part: int) -> Sequence[int]:
        """The first servers of `ranking`."""
        begin = part * self._width
        found = self._best[begin:begin + self._width]
        if found and found[0] == _UNKNOWN:
            # Threads that do it at the same time write the same.
            found = self._best[begin:begin + self._width] = array("H", self._rank(part)[:self._width])
        return found

    def ranking(self, part: int) -> list[int]:
        """All servers, the preferred one first; a few are remembered, for keys that many clients ask for."""
        found = self._rankings.get(part)
        if found is None:
            if len(self._rankings) >= _RANKINGS:
                self._rankings.clear()
            found = self._rankings[part] = self._rank(part)
        return found

    def _rank(self, part: int) -> list[int]:
        spread = part * 0x9E3779B97F4A7C15 & _MASK
        hashes = [(((first := (spread ^ seed) * _ODD & _MASK) ^ first >> 32) * _ODD & _MASK) for seed in self._seeds]
        if self._equal:  # -ln is monotonic
            return sorted(range(len(hashes)), key=hashes.__getitem__, reverse=True)
        scores = [-log((value + 1) / (_MASK + 2)) / weight for value, weight in zip(hashes, self._weights, strict=True)]
        return sorted(range(len(scores)), key=scores.__getitem__)


_in_use: WeakValueDictionary[tuple[tuple[str, int], ...], _Parts] = WeakValueDictionary()


def _parts(servers: tuple[tuple[str, int], ...]) -> _Parts:
    """Those of these servers: the same for the policy and the sessions of a pool, and forgotten with the last that uses them."""
    return _in_use.setdefault(servers, _in_use.get(servers) or _Parts(servers))
