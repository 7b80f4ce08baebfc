"""How the workers divide new clients among themselves.

All workers wait for the same listening sockets, and for a new client the kernel wakes them all. The quickest worker would get
most clients. With SO_REUSEPORT the kernel would divide clients by a hash, without regard to how many each worker has.

So a worker that has more clients than a sibling leaves a new client in the queue for a moment, and the sibling takes it. The
sibling may be busy or stopped: then the worker takes the client itself, after `_MOST_YIELD_S`.
"""
from __future__ import annotations

from collections.abc import Callable

from prefork_lb.worker.setup import SiblingClients

_MOST_YIELD_S = 0.01
_SLACK = 3  # up to so many clients more than a sibling has, a worker does not wait


class FairShare:
    """Decides, for one listening socket, whether this worker takes a new client."""

    def __init__(self, siblings: SiblingClients | None, look_again_at: Callable[[float], object]) -> None:
        """`siblings` None: this worker takes every client. `look_again_at` is called with the instant at which a client has been
        left long enough. At that instant `took` must be called unless a client waits in the queue."""
        self._siblings = siblings
        self._look_again_at = look_again_at
        self._yields_until = 0.0  # 0: no new client waits for a sibling
        self._fewest: int | None = None
        self._looked_at = -1.0

    def is_reached(self, count: int, now: float) -> bool:
        """Whether a worker with `count` clients has so many more than a sibling that the next one should be the sibling's, at the
        instant `now`: the siblings are looked at once for all calls of one instant."""
        if self._siblings is None:
            return False
        if now != self._looked_at:
            self._fewest, self._looked_at = self._siblings.fewest_clients(), now
        fewest = self._fewest
        return fewest is not None and count > fewest + _SLACK + (fewest >> 5)

    def leaves_it(self, count: int, now: float) -> bool:
        """Whether a new client is left to a sibling, at the instant `now`: for a short time at most."""
        if not self.is_reached(count, now):
            return False
        if not self._yields_until:
            self._yields_until = now + _MOST_YIELD_S
            self._look_again_at(self._yields_until)
        return now < self._yields_until

    def took(self) -> None:
        """The new client was taken, by this worker or by a sibling."""
        self._yields_until = 0.0
