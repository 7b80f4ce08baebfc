"""A limit of the requests that each client, session or key of a route may have in flight at once."""
from __future__ import annotations

import functools
import logging

from prefork_lb.errors import TooManyRequests
from prefork_lb.log_summary import summary
from prefork_lb.routing.guards import Passed
from prefork_lb.routing.limit_keys import KeyOf
from prefork_lb.routing.template import Facts
from prefork_lb.shared.key_claims import NO_ROOM, REACHED, KeyClaims
from prefork_lb.shared.rate_table import LimitKeys

_PASSED = Passed()


class Concurrency:
    """Of one route; a guard."""

    def __init__(self, claims: KeyClaims, keys: LimitKeys, key_of: KeyOf, limit: int) -> None:
        self._claims, self._keys, self._key_of, self._limit = claims, keys, key_of, limit

    def __call__(self, facts: Facts) -> Passed:
        """Count the request until its exchange is over. Raises TooManyRequests."""
        key = self._key_of(facts)
        if not key:
            return _PASSED
        entry = self._claims.claim(self._keys.of(key), self._limit)
        if entry == REACHED:
            raise TooManyRequests("as many requests of the same key are in flight as may be, of the "
                                  f"{self._limit} that the route allows over all balancers")
        if entry == NO_ROOM:
            # To refuse it would let a flood of keys shut out everybody else.
            summary.tell(logging.WARNING, "no room for keys", "so many keys have requests in flight that further ones are not "
                         "held to the concurrency of their routes")
            return _PASSED
        return Passed(functools.partial(self._claims.release, entry))
