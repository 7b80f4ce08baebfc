"""A roll: all servers that run are replaced by new ones, as a new version of the application needs it.

A roll is told by the instant at which it was asked for: servers that were started before are old. So a controller that follows
another one goes on with the roll. Old servers are drained and kept until the end, since the roll may fail: then they serve again,
and the new ones are drained. They could not be started again, for what they were started from may have been replaced.
"""
from __future__ import annotations

from typing import NamedTuple

from prefork_lb.scaling.scaled_server import ScaledServer

GONE_BACK = "gone back: "
"""How the text of a roll begins that has failed."""


class RollRequest(NamedTuple):
    """Replace the servers that were started before this instant, so many at a time."""

    before: float
    surge: int = 1


class RollOutcome(NamedTuple):
    """How a roll has ended."""

    is_done: bool  # else it has gone back
    text: str


class Rolling:
    """The roll that is under way, if there is one, and the end of the last one."""

    def __init__(self) -> None:
        self.request: RollRequest | None = None
        self.outcome: RollOutcome | None = None
        self.failure = ""  # not empty: it goes back

    def use(self, request: RollRequest | None) -> bool:
        """Do this roll from now on; None: none. Whether a new one begins."""
        if request == self.request:
            return False
        self.request, self.outcome, self.failure = request, None, ""
        return request is not None

    @property
    def is_under_way(self) -> bool:
        return self.request is not None and self.outcome is None

    @property
    def is_going_back(self) -> bool:
        """Whether it has failed, and its end is not reached."""
        return self.is_under_way and bool(self.failure)

    @property
    def surge(self) -> int:
        return self.request.surge if self.is_under_way and self.request else 1

    def is_old(self, member: ScaledServer) -> bool:
        """Whether the roll has found this server running."""
        return self.is_under_way and self.request is not None and member.since < self.request.before

    def is_new(self, member: ScaledServer) -> bool:
        """Whether it was started since the roll began."""
        return self.is_under_way and self.request is not None and member.since >= self.request.before

    def is_outgoing(self, member: ScaledServer) -> bool:
        """Whether the server is to be replaced."""
        return self.is_new(member) if self.failure else self.is_old(member)

    def fail(self, why: str) -> None:
        """Go back, if that has not begun yet."""
        if self.is_under_way and not self.failure:
            self.failure = why

    def end(self, text: str) -> None:
        """All has been done that was to do."""
        self.outcome = RollOutcome(False, f"{GONE_BACK}{self.failure}") if self.failure else RollOutcome(True, text)
