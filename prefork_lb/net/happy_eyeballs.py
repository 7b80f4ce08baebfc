"""When each address of a name is tried: Happy Eyeballs (RFC 8305), without sockets and without a clock of its own.

Facts: an address that drops packets neither accepts nor refuses a connection; it only uses up the time. Resolvers return such
addresses: of a host that has gone, or of a family that the network on the way does not carry. So the attempts overlap
(RFC 8305 5): the next address is tried when the previous one has failed or has been silent for a moment. The first connection
that is made wins.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.net.name_lookup import Endpoint

# RFC 8305 8: the recommended delay between two attempts, and the smallest one. The delay is below the recommended one only when
# the time is too short for all addresses.
_DELAY_S = 0.25
_LEAST_DELAY_S = 0.01
_ANSWER_PAUSE_S = 0.05  # between two looks at what a look-up under way has given

Failure = ConnectFailed | ConnectTimeout | OutOfDescriptors


def in_order(endpoints: Sequence[Endpoint], first: Endpoint | None = None) -> list[Endpoint]:
    """The order in which to try addresses that a resolver gave.

    The address families take turns, beginning with the family of the resolver's first address (RFC 8305 4). So a family that does
    not work costs one delay, however many addresses it has. `first` comes before all others if the resolver still returns it.
    """
    families: dict[int, list[Endpoint]] = {}
    for endpoint in dict.fromkeys(endpoints):
        families.setdefault(endpoint[0], []).append(endpoint)
    ordered = [endpoint for endpoint in chain.from_iterable(zip_longest(*families.values())) if endpoint is not None]
    if first in ordered:
        ordered.remove(first)
        ordered.insert(0, first)
    return ordered


class Attempts:
    """The attempts of one dial. The caller makes them: it tries the address that `due` returns, reports a failure to `failed`,
    and asks again at the instant `look_at`. All instants are seconds of one monotonic clock."""

    def __init__(self, deadline: float) -> None:
        """All attempts together end at `deadline`."""
        self._deadline = deadline
        self._waiting: deque[Endpoint] = deque()
        self._known: set[Endpoint] = set()
        self._may_grow = False
        self._under_way = 0
        self._next = 0.0  # when the next one is due
        self._failures: list[Failure] = []

    def update(self, endpoints: Iterable[Endpoint], may_grow: bool) -> None:
        """These are the addresses so far, in the order in which to try them; `may_grow`: a look-up is under way, more may come.

        Addresses that are new to this dial are tried behind the others.
        """
        self._may_grow = may_grow
        for endpoint in endpoints:
            if endpoint not in self._known:
                self._known.add(endpoint)
                self._waiting.append(endpoint)

    def due(self, now: float) -> Endpoint | None:
        """The address to begin with now, which is under way from here on; None when none is due."""
        if not self._waiting or now < self._next or now >= self._deadline:
            return None
        share_s = (self._deadline - now) / len(self._waiting)
        self._next = now + min(_DELAY_S, max(_LEAST_DELAY_S, share_s))
        self._under_way += 1
        return self._waiting.popleft()

    def failed(self, failure: Failure) -> None:
        """An attempt that was under way has failed: the next one is due at once."""
        self._under_way -= 1
        self._next = 0.0
        self._failures.append(failure)

    def look_at(self, now: float) -> float:
        """The instant at which the caller has to look again, if no attempt ends before."""
        when = self._deadline
        if self._waiting:
            when = min(when, self._next)
        if self._may_grow:
            when = min(when, now + _ANSWER_PAUSE_S)
        return when

    def is_over(self, now: float) -> bool:
        """Whether the time is over, or no attempt is under way and no address is left to try."""
        return now >= self._deadline or not (self._waiting or self._under_way or self._may_grow)

    def error(self, timed_out: ConnectTimeout) -> Failure:
        """The error to raise when the dial is over without a connection; `timed_out` if the time was too short."""
        for failure in self._failures:
            if isinstance(failure, OutOfDescriptors):
                return failure  # the address that could not be tried may be a good one
        if not self._failures or self._under_way or self._waiting or self._may_grow:
            return timed_out
        return self._failures[-1]
