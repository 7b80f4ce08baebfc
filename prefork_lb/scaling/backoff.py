"""When a server may be started, after some that could not be or that ended by themselves."""
from __future__ import annotations

_LONGEST_WAIT_S = 15.0
_TOGETHER_S = 1.0
GIVE_UP_AFTER = 6
GIVEN_UP_S = 60.0
WELL_S = 60.0
"""A server that has served for so long was started well: failures before it do not count any more."""


class Backoff:
    """Counts failures in a row. The waits are 0, 1, 3, 7 and 15 s; after the sixth failure there is none for a minute, and so
    after each one more. Failures within a second have one cause, as a rule, and count as one."""

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = self._next = 0.0

    def fail(self, now: float) -> str:
        """Note a failure; what follows, in words."""
        if not self._failures or now - self._failed_at >= _TOGETHER_S:
            self._failures += 1
            self._failed_at = now
        wait_s = GIVEN_UP_S if self.is_given_up else min(2.0 ** (self._failures - 1) - 1, _LONGEST_WAIT_S)
        # A start that failed at once is not made again within the second in which it would not count.
        self._next = self._failed_at + (wait_s if now == self._failed_at else max(wait_s, _TOGETHER_S))
        if self.is_given_up:
            return f"{self._failures} failures in a row: none is started for {wait_s:g} s"
        return f"the next start is in {wait_s:g} s" if wait_s else "another one is started"

    def note_well(self, started: float, served_s: float) -> None:
        """Note that a server that was started at this instant has served for so long."""
        if self._failures and served_s >= WELL_S and started >= self._failed_at:
            self.forget()

    def forget(self) -> None:
        """Start with the next one as if none had failed."""
        self._failures, self._next = 0, 0.0

    @property
    def is_given_up(self) -> bool:
        """Whether too many have failed in a row."""
        return self._failures >= GIVE_UP_AFTER

    def may_start(self, now: float, starting: int) -> bool:
        """Whether one more may be started now, while so many are starting. After a failure one at a time is."""
        return not self._failures or (now >= self._next and not starting)
