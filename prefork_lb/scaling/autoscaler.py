"""How many servers a pool needs, from what it has to do: averages, the rule, and what an operator has limited."""
from __future__ import annotations

import math
from dataclasses import dataclass

from prefork_lb.scaling.rule import RuleSettings, ScalingRule, Wish
from prefork_lb.scaling.windows import Average, Growth, Largest

_ROUNDING = 1e-9  # of an average: 8.0000000001 requests need no third server


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """What a pool has to do at an instant."""

    in_flight: int  # with those that wait
    requests: int = 0  # so far: when this number changes, the pool was not idle
    cpu: float = 0.0  # cores in use
    waited: int = 0  # requests that have waited in the queue so far
    waited_s: float = 0.0  # and for how long in all


class Autoscaler:
    """For one pool. Times are seconds of the caller's clock, and never go back."""

    def __init__(self, settings: RuleSettings, now: float, running: int) -> None:
        """`running` servers are there already."""
        self._settings = settings
        self._rule = ScalingRule(settings, now, running)
        self._busy_at = now
        self._requests = -1
        self._in_flight = Average(), Average()  # stable, panic
        self._cpu = Average(), Average()
        self._waits = Growth()
        self._for_queue = Largest()

    def use(self, settings: RuleSettings) -> None:
        """Go by these settings from now on; what was measured stays."""
        self._settings = self._rule.settings = settings

    def note(self, now: float, load: PoolLoad) -> None:
        """Take a sample; a few in a second are good."""
        for average in self._in_flight:
            average.add(now, load.in_flight)
        for average in self._cpu:
            average.add(now, load.cpu)
        self._waits.add(now, load.waited, load.waited_s)
        if load.in_flight or load.requests != self._requests:
            self._busy_at, self._requests = now, load.requests

    def wish(self, now: float, running: int, least: int) -> Wish:
        """How many there should be. `running` take requests now; `least` is the smallest number at this time."""
        stable = self._demand(now, running, self._settings.stable_window_s, 0)
        panic = self._demand(now, running, self._settings.panic_window_s, 1)
        wish = self._with_queue(now, running, self._rule.wish(now, stable, panic, running))
        if wish.servers < max(least, 1) and (least or self._is_kept_awake(now, running)):
            return Wish(max(least, 1), f"{stable.why}; at least {least}" if least else self._idle_in_words(now))
        if wish.servers > self._settings.most:
            return Wish(self._settings.most, f"{wish.why}; at most {self._settings.most}")
        return wish

    def _demand(self, now: float, running: int, window_s: float, which: int) -> Wish:
        """What an average asks for: of requests in flight or of CPU, the larger wish."""
        settings = self._settings
        average = f"average of {window_s:g} s" if which else "average"
        in_flight, cpu = (each[which].over(now, window_s) for each in (self._in_flight, self._cpu))
        count = _servers(in_flight / settings.target)
        if settings.cpu and (wanted := _servers(cpu / settings.cpu)) > count:
            return Wish(wanted, f"{average} {cpu:.1f} cores in use, target {settings.cpu:g}: wants {wanted}, has {running}")
        return Wish(count, f"{average} {in_flight:.1f} in flight, target {settings.target:g}: wants {count}, has {running}")

    def _with_queue(self, now: float, running: int, wish: Wish) -> Wish:
        """One server more than run while requests wait for too long in the queue; it stays for a stable window after that."""
        settings = self._settings
        waits, waited_s = self._waits.over(now, settings.panic_window_s)
        mean_s = waited_s / waits if waits else 0.0
        is_long = 0 < settings.queue_s < mean_s
        self._for_queue.add(now, running + 1 if is_long else 0)
        wanted = self._for_queue.over(now, settings.stable_window_s)
        if wanted <= wish.servers:
            return wish
        if is_long:
            return Wish(wanted, f"{mean_s:.2f} s in the queue, target {settings.queue_s:g}: wants {wanted}, has {running}")
        return Wish(wanted, f"{wish.why}; keeps {wanted} for a while, since requests have waited in the queue")

    def _is_kept_awake(self, now: float, running: int) -> bool:
        """Whether the last server is kept, though nothing asks for it."""
        return running > 0 and now - self._busy_at < self._settings.idle_s

    def _idle_in_words(self, now: float) -> str:
        return f"idle for {now - self._busy_at:.0f} s; the last one ends after {self._settings.idle_s:g} s"


def _servers(demand: float) -> int:
    return math.ceil(demand - _ROUNDING)
