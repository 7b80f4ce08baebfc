"""The split of a route: its requests go to several pools by weight."""
from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence

from prefork_lb.routing.spread import Spread
from prefork_lb.wire.cookies import cookie


class Split:
    """Pools and their weights. With a cookie a client stays with the pool that its first request got."""

    def __init__(self, weights: Mapping[str, int], cookie: str, start: int) -> None:
        """`cookie` is its name; empty: clients do not stay. `start` is for the sequence of picks."""
        self.pools = [pool for pool, weight in weights.items() if weight]
        self._bounds = list(itertools.accumulate(filter(None, weights.values())))
        self.cookie = cookie.encode()
        self._spread = Spread(start)

    def told(self, cookies: Sequence[bytes]) -> str:
        """The pool with which a client stays, by its Cookie fields; empty: none.

        A pool without weight counts as none: so a canary that is given up loses all its clients.
        """
        name = (cookie(cookies, self.cookie) or b"").decode("latin-1") if self.cookie else ""
        return name if name in self.pools else ""

    def pick(self, cookies: Sequence[bytes]) -> str:
        """The pool of a request with these Cookie fields."""
        return self.told(cookies) or self.pools[bisect.bisect(self._bounds, self._spread.below(self._bounds[-1]))]

    def cookie_for(self, pool: str, is_https: bool) -> tuple[bytes, bytes]:
        """The field by which a client stays with a pool, for as long as its browser runs."""
        secure = b"; Secure" if is_https else b""
        return b"Set-Cookie", b"%b=%b; Path=/; HttpOnly; SameSite=Lax%b" % (self.cookie, pool.encode(), secure)
