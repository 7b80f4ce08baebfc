"""A limit of the requests a second that each client, session or key of a route may make."""
from __future__ import annotations

import math

from prefork_lb.clock import Clock
from prefork_lb.errors import TooManyRequests
from prefork_lb.shared.rate_table import LimitKeys, RateTable


class RateLimit:
    """Of one route."""

    def __init__(self, table: RateTable, keys: LimitKeys, per_second: float, burst: int, clock: Clock) -> None:
        """`burst` requests may come at once, more only as `per_second` allows."""
        self._table, self._keys, self._clock = table, keys, clock
        self._interval_ns = max(1, round(1e9 / per_second))
        self._ahead_ns = (burst - 1) * self._interval_ns
        # draft-ietf-httpapi-ratelimit-headers: the quota, and the window in which it comes again.
        window_s = max(1, math.ceil(burst / per_second))
        self._policy = b'"route";q=%d;w=%d' % (burst, window_s)

    def hash(self, key: bytes) -> int:
        """What `take` wants to know of a key."""
        return self._keys.of(key)

    def take(self, key: int) -> None:
        """Count a request of the key with this hash. Raises TooManyRequests when it comes too early."""
        wait_ns = self._table.take(key, self._interval_ns, self._ahead_ns, int(self._clock() * 1e9))
        if wait_ns:
            wait_s = math.ceil(wait_ns / 1e9)
            raise TooManyRequests(f"over the rate that the route allows, for another {wait_s} s", wait_s,
                                  [(b"RateLimit-Policy", self._policy), (b"RateLimit", b'"route";r=0;t=%d' % wait_s)])
