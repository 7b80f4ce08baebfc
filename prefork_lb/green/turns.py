"""Who keeps the loop from others, and how it gives way.

Greenlets are not preempted: a greenlet runs until it waits, and one whose peers are so fast that there is always something to
receive never waits. So code that finds data without a wait calls `share` first. A greenlet that has kept the loop for longer
than a turn then lets the others and the new events go first, and goes on in its next turn.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from greenlet import getcurrent

if TYPE_CHECKING:
    from prefork_lb.green.hub import Hub

TURN_S: Final = 0.001
"""How long a greenlet that never waits keeps the loop. A turn costs one epoll_wait and one switch: a 200th of this time."""


class Turns:
    """The greenlets that have given way, and the jobs behind them, in the order in which they go on."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.waiting: deque[Callable[[], object]] = deque()  # what the hub calls when their turn comes

    def share(self) -> None:
        """Let others run first, if this greenlet has kept the loop for longer than a turn."""
        hub = self._hub
        if hub.clock() - hub.now > TURN_S:
            self.waiting.append(getcurrent().switch)
            hub.switch()

    def after(self, job: Callable[[], None]) -> None:
        """Call `job` when every greenlet that has given way by now has had its turn. Called in the hub."""
        if self.waiting:
            self.waiting.append(job)
        else:
            job()

    def run(self, until: float) -> None:
        """Give each one a turn, and start none after `until`. Called in the hub."""
        hub, waiting = self._hub, self.waiting
        for _ in range(len(waiting)):
            hub.now = hub.clock()
            waiting.popleft()()
            if hub.clock() >= until:
                break
