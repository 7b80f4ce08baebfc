"""Keeps the controller running, from the workers' side."""
from __future__ import annotations

import logging
import subprocess
import sys
import time

from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive
from prefork_lb.shared.segment import Segment

# A worker that is not the first waits for the first one to do it; should that be frozen, it does it itself.
_NEXT_IN_LINE_S = 0.75
_AGAIN_S = 3.0

log = logging.getLogger("prefork_lb")


class Launcher:
    """Starts the instance's controller when there is none. Of two that are started at once, one ends itself."""

    def __init__(self, segment: Segment, error_log: str) -> None:
        """`error_log` is the file that the controller's messages go to; empty: standard error."""
        self._segment = segment
        self._error_log = error_log
        self._process: subprocess.Popen[bytes] | None = None
        self._missed_since = 0.0
        self._started_at = 0.0

    def look(self, is_first: bool) -> None:
        """Start the controller if it does not run. To be called a few times a second; `is_first` in one worker at a time."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        cells = self._segment.cells
        if is_alive(cells[at.H_CONTROLLER], cells[at.H_CONTROLLER + 1]):
            self._missed_since = 0.0
            return
        now = time.monotonic()
        self._missed_since = self._missed_since or now
        waits = 0.0 if is_first else _NEXT_IN_LINE_S
        if now - self._missed_since < waits or (self._started_at and now - self._started_at < _AGAIN_S and self._process):
            return
        self._started_at = now
        command = [sys.executable, "-m", "prefork_lb.controller", self._segment.name]
        if self._error_log:
            command += ["--log", self._error_log]
        try:
            # A session of its own: Ctrl-C at the terminal is the master's to hear, whose end is the controller's.
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as exc:
            log.error("the controller cannot be started, which is tried again in %g s: %s: %s", _AGAIN_S, sys.executable, exc)
            self._missed_since = now + _AGAIN_S
