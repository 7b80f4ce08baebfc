"""The split of a route: its requests go to several pools by weight."""
from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from prefork_lb.routing.spread import Spread
from prefork_lb.wire.cookies import cookie


class SetWeights(Protocol):
    """Weights that operators set at run time."""

    @property
    def changes(self) -> Sequence[int]:
        """One number, which is another one after each change."""

    def in_force(self, configured: Mapping[str, int]) -> Mapping[str, int]:
        """The weights now; `configured` are those of the configuration. One at least is not 0."""


class _Shares(NamedTuple):
    """The pools that have weight, and the bounds of their shares."""

    pools: Sequence[str]
    bounds: Sequence[int]


class Split:
    """Pools and their weights. With a cookie a client stays with the pool that its first request got."""

    def __init__(self, weights: Mapping[str, int], cookie: str, start: int, set_weights: SetWeights | None = None) -> None:
        """`cookie` is its name; empty: clients do not stay. `start` is for the sequence of picks."""
        self._configured = weights
        self._set_weights = set_weights
        self._changes: Sequence[int] = set_weights.changes if set_weights is not None else (0,)
        self._seen = 0
        self.weights: Mapping[str, int] = weights
        """Those that were in force at the last look."""
        self._kept = _shares(weights)
        self.cookie = cookie.encode()
        self._spread = Spread(start)

    def has(self, pool: str) -> bool:
        """Whether the pool has weight."""
        return pool in (self._kept if self._changes[0] == self._seen else self._look()).pools

    def told(self, cookies: Sequence[bytes]) -> str:
        """The pool with which a client stays, by its Cookie fields; empty: none.

        A pool without weight counts as none: so a canary that is given up loses all its clients.
        """
        name = (cookie(cookies, self.cookie) or b"").decode("latin-1") if self.cookie else ""
        return name if name and self.has(name) else ""

    def pick(self, cookies: Sequence[bytes]) -> str:
        """The pool of a request with these Cookie fields."""
        # One comparison while nobody sets a weight.
        pools, bounds = self._kept if self._changes[0] == self._seen else self._look()
        return self.told(cookies) or pools[bisect.bisect(bounds, self._spread.below(bounds[-1]))]

    def cookie_for(self, pool: str, is_https: bool) -> tuple[bytes, bytes]:
        """The field by which a client stays with a pool, for as long as its browser runs."""
        secure = b"; Secure" if is_https else b""
        return b"Set-Cookie", b"%b=%b; Path=/; HttpOnly; SameSite=Lax%b" % (self.cookie, pool.encode(), secure)

    def _look(self) -> _Shares:
        """The shares in force, after a change."""
        changes = self._changes[0]  # before the weights: what is set meanwhile is seen at the next look
        if self._set_weights is not None:
            self.weights = self._set_weights.in_force(self._configured)
        self._kept = _shares(self.weights)
        self._seen = changes
        return self._kept


def _shares(weights: Mapping[str, int]) -> _Shares:
    return _Shares([pool for pool, weight in weights.items() if weight],
                   list(itertools.accumulate(filter(None, weights.values()))))
