"""Whether a worker has more to do than it can: how far its loop lags behind, and since when.

epoll returns descriptors in the order in which they became ready (epoll(7)). So from time to time the worker makes a
descriptor of its own ready, the probe. The time until the probe's turn comes is the time that every client waits: the lag.

A short stall is no overload. A lag that stays is one: the worker then refuses requests, because a refusal is cheap, and
answers that all come late help no client (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10, 2012: what counts is
the least delay within an interval).
"""
from __future__ import annotations

import logging
import os
from collections.abc import Callable

from prefork_lb.clock import Clock, monotonic
from prefork_lb.green.hub import Hub
from prefork_lb.log_summary import LogSummary, summary
from prefork_lb.worker.setup import nothing

_PROBE_S = 0.05
_WORST_S = 1.0
_INTERVAL_S = 1.0  # a lag must last, or be gone, for so long before `is_high` changes
_LEAST_PROBES = 3
_FEW_EVENTS = 16  # in a round while the loop lags: clock, timers and new connections get their turn more often

log = logging.getLogger("prefork_lb")


class Overload:
    """Measures the lag of a hub. While `is_high` is false, a request has nothing else to check."""

    def __init__(self, hub: Hub, limit_s: float, clock: Clock = monotonic, log_summary: LogSummary = summary,
                 note_lag: Callable[[float], None] = lambda _: None, note_shed: Callable[[], None] = nothing) -> None:
        """A lag above `limit_s` is too much; 0: no limit. `note_lag` hears how far the loop has lagged at most within the last
        second, in seconds; `note_shed` hears of each refusal."""
        self.is_high = False
        self._hub = hub
        self._limit_s = limit_s
        self._clock = clock
        self._sent_at = 0.0  # when the probe under way was sent; 0: none is
        self._due = clock()  # the next look
        self._since = 0.0  # since when the lag is above the limit, or in an overload well below it
        self._probes = 0  # how many probes in a row have said so
        self._summary = log_summary
        self._note_lag, self._note_shed = note_lag, note_shed
        self._worst_s, self._worst_until = 0.0, 0.0  # the greatest lag, and until when it is the one to tell
        self._probe = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        if limit_s:
            hub.watch(self._probe, self._came_back)
            hub.every(_PROBE_S, self._look)

    @property
    def is_limited(self) -> bool:
        """Whether a limit is set."""
        return self._limit_s > 0

    def is_too_late(self, since: float) -> bool:
        """Whether a request that waits since this instant has waited too long."""
        return self._clock() - since > self._limit_s

    def must_refuse(self) -> bool:
        """Whether to refuse the present request: its wait is taken to be the probe's age. Counts a refusal.

        To be called during an overload only.
        """
        if not self._sent_at or not self.is_too_late(self._sent_at):
            return False
        self.count_refusal()
        return True

    def count_refusal(self) -> None:
        """Count a request or connection that was refused for overload. The log gives the number once a second."""
        self._note_shed()
        self._summary.tell(logging.WARNING, "overload", "overload: a request or a connection is refused")

    def close(self) -> None:
        """Close the probe."""
        self._hub.unwatch(self._probe)
        os.close(self._probe)

    def _look(self) -> None:
        now = self._clock()
        due, self._due = self._due, now + _PROBE_S
        if not self._sent_at:
            # During a long round the hub runs no timer. Clients that came in it wait since `due`, so the probe counts from there.
            self._send(due)
        elif not self.is_high and now - self._sent_at > self._limit_s + _INTERVAL_S:
            self._begin(now - self._sent_at)

    def _send(self, since: float) -> None:
        self._sent_at = since
        os.eventfd_write(self._probe, 1)

    def _came_back(self) -> None:
        os.eventfd_read(self._probe)
        self._hub.turns.after(self._measure)  # the lag includes the turns: a new client's handshake waits for them too

    def _measure(self) -> None:
        now = self._clock()
        lag_s, self._sent_at = now - self._sent_at, 0.0
        if lag_s >= self._worst_s or now >= self._worst_until:
            self._worst_s, self._worst_until = lag_s, now + _WORST_S
            self._note_lag(lag_s)
        self._due = now + _PROBE_S  # one stall may delay the probe and the next look; it must count once
        self._hub.limit_round(_FEW_EVENTS if lag_s > self._limit_s / 4 else 0)
        if lag_s <= self._limit_s / 2 if self.is_high else lag_s > self._limit_s:
            self._probes += 1
            if self._probes == 1:
                self._since = now if self.is_high else now - lag_s
        else:
            self._probes = 0
        if self._probes >= _LEAST_PROBES and now - self._since >= _INTERVAL_S:
            self._probes = 0
            if self.is_high:
                self._end()
            else:
                self._begin(lag_s)
        if self.is_high:
            self._send(now)  # at once: `must_refuse` needs the age of a probe under way

    def _begin(self, lag_s: float) -> None:
        self.is_high, self._probes = True, 0
        log.warning("overload: the loop lags %.2f s; requests that waited longer than %g s are refused", lag_s, self._limit_s)

    def _end(self) -> None:
        self.is_high = False
        log.warning("the loop lags no more")
