"""Whether a worker has more to do than it can: how far its loop lags behind, and since when.

epoll hands descriptors out in the order in which they became ready (epoll(7)). So the worker makes one of its own ready
from time to time: how long it takes until that one's turn comes is what everybody waits. A stall is no overload; a lag that
stays is: refusing what comes is cheap then, and serving all of it late is of no use to anybody (Nichols and Jacobson,
"Controlling Queue Delay", ACM Queue 10, 2012: what counts is the least delay within an interval).
"""
from __future__ import annotations

import logging
import os

from prefork_lb.clock import Clock, monotonic
from prefork_lb.green.hub import Hub
from prefork_lb.log_summary import LogSummary, summary

_PROBE_S = 0.05
_INTERVAL_S = 1.0  # a lag that lasts so long is no stall, and one that is gone for so long does not come back at once
_LEAST_PROBES = 3
_FEW_EVENTS = 16  # in a round, so that the clock, the timers and new connections are looked at more often

log = logging.getLogger("prefork_lb")


class Overload:
    """Measures the lag of a hub. `is_high` is all that a request has to look at as long as nothing is wrong."""

    def __init__(self, hub: Hub, limit_s: float, clock: Clock = monotonic, log_summary: LogSummary = summary) -> None:
        """`limit_s` is the lag that is too much; 0: none is."""
        self.is_high = False
        self._hub = hub
        self._limit_s = limit_s
        self._clock = clock
        self._sent_at = 0.0  # of the probe that is under way; 0: none is
        self._due = clock()  # the next look
        self._since = 0.0  # the lag has been above the limit, or in an overload well below it
        self._probes = 0  # for so many probes
        self._summary = log_summary
        self._probe = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        if limit_s:
            hub.watch(self._probe, self._came_back)
            hub.every(_PROBE_S, self._look)

    @property
    def is_limited(self) -> bool:
        """Whether there is a lag that is too much."""
        return self._limit_s > 0

    def is_too_late(self, since: float) -> bool:
        """Whether what has waited since that instant has done so for too long."""
        return self._clock() - since > self._limit_s

    def must_refuse(self) -> bool:
        """Whether what comes now has waited for too long, as far as one can tell. To be asked in an overload only; counts it."""
        if not self._sent_at or not self.is_too_late(self._sent_at):
            return False
        self.count_refusal()
        return True

    def count_refusal(self) -> None:
        """A request or a connection was refused for it; the log tells how many, once a second."""
        self._summary.tell(logging.WARNING, "overload", "overload: a request or a connection is refused")

    def close(self) -> None:
        """Let go of the descriptor."""
        self._hub.unwatch(self._probe)
        os.close(self._probe)

    def _look(self) -> None:
        now = self._clock()
        due, self._due = self._due, now + _PROBE_S
        if not self._sent_at:
            # Busy with one round, the hub looks at no timer: what came meanwhile has waited since then, too.
            self._send(due)
        elif not self.is_high and now - self._sent_at > self._limit_s + _INTERVAL_S:
            self._begin(now - self._sent_at)

    def _send(self, since: float) -> None:
        self._sent_at = since
        os.eventfd_write(self._probe, 1)

    def _came_back(self) -> None:
        os.eventfd_read(self._probe)
        self._hub.after_turns(self._measure)  # a newcomer's handshake waits for its turn as well

    def _measure(self) -> None:
        now = self._clock()
        lag_s, self._sent_at = now - self._sent_at, 0.0
        self._due = now + _PROBE_S  # what kept the probe may have kept a look as well, and counts once
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
            self._send(now)  # at once: its age says how long those have waited whose turn comes

    def _begin(self, lag_s: float) -> None:
        self.is_high, self._probes = True, 0
        log.warning("overload: the loop lags %.2f s; requests that waited longer than %g s are refused", lag_s, self._limit_s)

    def _end(self) -> None:
        self.is_high = False
        log.warning("the loop lags no more")
