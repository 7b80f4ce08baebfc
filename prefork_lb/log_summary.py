"""Log lines that may come with every request: the first of a kind is written at once, the ones that follow are counted.

A full queue refuses a thousand requests a second, and a server that is down fails as many attempts. One line for each would fill
a disk and cost more than the request. So a kind of line is written once a second at most, with the number of those left out.
"""
from __future__ import annotations

import logging
import threading
from collections.abc import Hashable

from prefork_lb.clock import Clock, monotonic

EVERY_S = 1.0
# The most kinds that are known at a time. A kind may hold what a client or a server said, so there can be any number of them.
_MOST_KINDS = 256
_OTHERS = object()


class _Kind:
    """The lines of a kind that were counted since one was last written."""

    __slots__ = ("count", "level", "since", "text")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.level, self.text = logging.INFO, ""  # of the first one that was counted


class LogSummary:
    """Limits the log lines of one process. Threads may share it."""

    def __init__(self, log: logging.Logger, clock: Clock = monotonic, every_s: float = EVERY_S) -> None:
        """A kind is written once in `every_s` seconds at most, if `tick` is called so often."""
        self._log = log
        self._clock = clock
        self._every_s = every_s
        self._kinds: dict[Hashable, _Kind] = {}
        # Nothing in a section waits or switches greenlets, so a lock of threads serves gevent, too.
        self._lock = threading.Lock()

    def tell(self, level: int, kind: Hashable, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Write the line (`message % args`), or count it when one of its kind was written a moment ago."""
        if not self._log.isEnabledFor(level):
            return
        now = self._clock()
        with self._lock:
            known = self._kinds.get(kind)
            if known is None and len(self._kinds) >= _MOST_KINDS:
                kind = _OTHERS
                known = self._kinds.get(kind)
            if known is None:
                self._kinds[kind] = _Kind(now)
            else:
                known.count += 1
                if known.count == 1:
                    # As text: an exception would keep its frames, and all that they hold, until the line is written.
                    known.level, known.text = level, message % args if args else message
        if known is None:
            self._log.log(level, message, *args, exc_info=exc_info)
        elif now - known.since >= self._every_s:
            self.tick()

    def tick(self) -> None:
        """Write what was counted of kinds whose second is over. To be called a few times a second."""
        if self._kinds:
            self._write(self._every_s)

    def flush(self) -> None:
        """Write all that was counted. To be called when the process ends."""
        self._write(0.0)

    def _write(self, least_age_s: float) -> None:
        now = self._clock()
        lines: list[tuple[int, int, float, str]] = []
        with self._lock:
            for kind, known in list(self._kinds.items()):
                age_s = now - known.since
                if age_s < least_age_s:
                    continue
                if known.count:
                    lines.append((known.level, known.count, age_s, known.text))
                    known.since, known.count = now, 0
                else:
                    del self._kinds[kind]  # the next one is written at once
        for level, count, age_s, text in lines:
            self._log.log(level, "%d more in %.1f s like this: %s", count, age_s, text)


summary = LogSummary(logging.getLogger("prefork_lb"))
"""This process' own. `wiring` calls `tick` and `flush`."""
