"""Independent duties that the controller repeats."""
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from prefork_lb.clock import Clock, monotonic

_TELLS_AGAIN_S = 60.0  # a failure that stays the same

log = logging.getLogger("prefork_lb")


class Duties:
    """Does all duties at every look. A duty that fails does not stop the others; it is tried again at the next look."""

    def __init__(self, duties: Mapping[str, Callable[[], object]], clock: Clock = monotonic) -> None:
        """`duties` by what they do, as it is put into a message: "sweep"."""
        self._duties = duties
        self._clock = clock
        self._failing: dict[str, tuple[str, float]] = {}  # what failed, and when it was told

    def look(self) -> None:
        """Do each duty once. Failures are logged: with a traceback when they are new, and once a minute."""
        for name, do in self._duties.items():
            try:
                do()
            except Exception as exc:
                self._failed(name, exc)
            else:
                if self._failing.pop(name, None):
                    log.warning("the controller can %s again", name)

    def _failed(self, name: str, exc: Exception) -> None:
        what, now = repr(exc), self._clock()
        told, told_at = self._failing.get(name, ("", 0.0))
        if what != told or now - told_at >= _TELLS_AGAIN_S:
            self._failing[name] = what, now
            log.exception("the controller cannot %s; it tries again and does its other duties meanwhile", name)


def do_at_the_end(duties: Mapping[str, Callable[[], object]], beat: Callable[[], object]) -> None:
    """Do each duty a last time, with a sign of life before it, since some take seconds. One that fails stops no other."""
    for name, do in duties.items():
        beat()
        try:
            do()
        except Exception:
            log.exception("the controller, which ends, cannot %s", name)
