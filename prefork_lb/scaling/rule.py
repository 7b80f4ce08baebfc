"""How many servers follow from what the averages ask for: the rule of Knative's autoscaler.

There are two averages. What the one over the stable window asks for is what the pool needs as a rule. When the one over the panic
window asks for twice the servers that run, the pool is in panic: the larger of the two applies, and no server is ended until the
stable window has passed without such a moment, for by then the surge is part of the stable average.

After Knative 1.x, pkg/autoscaler/scaling/autoscaler.go; `RuleSettings` has the names of the settings there.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from prefork_lb.scaling.windows import Largest

_PANIC_AT = 2.0  # panic-threshold-percentage


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """What an operator wants."""

    most: int  # max-scale
    target: float  # requests in flight by server: container-concurrency-target
    stable_window_s: float = 60.0
    panic_window_s: float = 6.0
    max_up: float = 10.0  # max-scale-up-rate
    max_down: float = 2.0  # max-scale-down-rate
    down_delay_s: float = 0.0  # scale-down-delay
    idle_s: float = 300.0  # without a request, until the last server may go
    cpu: float = 0.0  # cores by server; 0: not looked at
    queue_s: float = 0.0  # in the queue, by request; 0: not looked at


class Wish(NamedTuple):
    """How many servers there should be, and why, for the operator."""

    servers: int
    why: str


class ScalingRule:
    """The rule for one pool. Times are seconds of the caller's clock."""

    def __init__(self, settings: RuleSettings, now: float, running: int) -> None:
        """`running` servers are there already. They are kept for a stable window, since nothing is known of the time before."""
        self.settings = settings
        self._panic_since = now if running > 1 else None  # the last moment that asked for so many
        self._kept = running if running > 1 else 0  # in panic: the most that were wished
        self._delayed = Largest()

    @property
    def is_in_panic(self) -> bool:
        return self._panic_since is not None

    def wish(self, now: float, stable: Wish, panic: Wish, running: int) -> Wish:
        """What there should be, when the averages ask for this and so many servers take requests."""
        settings, ready = self.settings, max(running, 1)
        if panic.servers / ready >= _PANIC_AT:
            self._panic_since = now
        elif self._panic_since is not None and now - self._panic_since > settings.stable_window_s:
            self._panic_since, self._kept = None, 0
        count, why = self._limited(stable, ready)
        if self._panic_since is not None:
            count, why = max((count, why), self._limited(panic, ready), key=lambda wish: wish[0])
            if count < self._kept:
                left_s = self._panic_since + settings.stable_window_s - now
                why = f"{why}; keeps {self._kept} for {left_s:.0f} s more, since so many were needed"
            count = max(count, self._kept)
            self._kept = min(count, settings.most)
        self._delayed.add(now, count)
        kept = self._delayed.over(now, settings.down_delay_s)
        return Wish(kept, f"{why}; keeps {kept} for a while") if kept > count else Wish(count, why)

    def _limited(self, wish: Wish, ready: int) -> Wish:
        """Not more than `max_up` allows, and not fewer than `max_down` does."""
        most, least = math.ceil(self.settings.max_up * ready), math.floor(ready / self.settings.max_down)
        if wish.servers > most:
            return Wish(most, f"{wish.why}; at most {most} at a time")
        return Wish(least, f"{wish.why}; at least {least} for now") if wish.servers < least else wish
