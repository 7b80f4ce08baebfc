"""A limit of the requests a second that each client, session or key of a route may make."""
from __future__ import annotations

import functools
import math
from typing import Final

from prefork_lb.clock import Clock
from prefork_lb.errors import TooManyRequests
from prefork_lb.routing.actions import Take
from prefork_lb.routing.limit_keys import KeyOf
from prefork_lb.routing.template import Facts
from prefork_lb.shared.rate_table import LimitKeys, RateTable

# What counts the requests of keys that came lately is kept: 200 KiB a limit.
_KEPT_KEYS: Final = 512
_LONGEST_KEPT: Final = 64


class RateLimit:
    """Of one route."""

    def __init__(self, table: RateTable, keys: LimitKeys, key_of: KeyOf, per_second: float, burst: int, clock: Clock) -> None:
        """`key_of` finds the key of a request. `burst` requests may come at once, more only as `per_second` allows."""
        self._table, self._keys, self._clock = table, keys, clock
        self._key_of = key_of
        self._kept = functools.lru_cache(maxsize=_KEPT_KEYS)(self.of_key)
        self._interval_ns = max(1, round(1e9 / per_second))
        self._ahead_ns = (burst - 1) * self._interval_ns
        # draft-ietf-httpapi-ratelimit-headers: the quota, and the window in which it comes again.
        window_s = max(1, math.ceil(burst / per_second))
        self._policy = b'"route";q=%d;w=%d' % (burst, window_s)

    def of_request(self, facts: Facts) -> Take | None:
        """What counts a request; None: it has no key."""
        key = self._key_of(facts)
        if not key:
            return None
        return self._kept(key) if len(key) <= _LONGEST_KEPT else self.of_key(key)

    def of_key(self, key: bytes) -> Take:
        """What counts the requests of a key. It raises TooManyRequests when one comes too early."""
        return functools.partial(self._take, self._keys.of(key))

    def _take(self, key: int) -> None:
        wait_ns = self._table.take(key, self._interval_ns, self._ahead_ns, int(self._clock() * 1e9))
        if wait_ns:
            wait_s = math.ceil(wait_ns / 1e9)
            raise TooManyRequests(f"over the rate that the route allows, for another {wait_s} s", wait_s,
                                  [(b"RateLimit-Policy", self._policy), (b"RateLimit", b'"route";r=0;t=%d' % wait_s)])
