"""Turns the results of single checks into a server's state."""
from __future__ import annotations

import enum


class CheckState(enum.Enum):
    """What active checks say of a server."""

    UP = "up"
    DOWN = "down"
    CHECKING = "checking"  # new: no traffic before the first pass


class Streak:
    """A server's state, and the checks in a row that speak against it.

    UP -> DOWN after `fall` failures, DOWN -> UP after `rise` passes, CHECKING -> DOWN after `fall` failures, and
    CHECKING -> UP at the first pass. Not safe for use by several threads at a time.
    """

    def __init__(self, state: CheckState, rise: int, fall: int) -> None:
        self._state = state
        self._rise = rise
        self._fall = fall
        self._against = 0

    @property
    def state(self) -> CheckState:
        return self._state

    @property
    def is_settled(self) -> bool:
        """Whether the last check agreed with the state; never while CHECKING."""
        return self._against == 0 and self._state is not CheckState.CHECKING

    def note(self, passed: bool) -> CheckState:
        """Count one more check. Returns the state after it."""
        verdict = CheckState.UP if passed else CheckState.DOWN
        if verdict is self._state:
            self._against = 0
            return self._state
        self._against += 1
        if self._against >= self._needed(passed):
            self._state, self._against = verdict, 0
        return self._state

    def _needed(self, passed: bool) -> int:
        if not passed:
            return self._fall
        return 1 if self._state is CheckState.CHECKING else self._rise
