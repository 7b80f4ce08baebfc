"""Keeps a process beside the controller running, while the configuration in force has its section."""
from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefork_lb.clock import Clock, monotonic
from prefork_lb.config.section import Section
from prefork_lb.shared.segment import Segment

if TYPE_CHECKING:
    import subprocess

_LONGEST_WAIT_S = 30.0
_WELL_S = 10.0  # a process that has run for so long is started again at once
_PATIENCE_S = 5.0  # from SIGTERM to SIGKILL

log = logging.getLogger("prefork_lb")


def command_of(module: str) -> Sequence[str]:
    """The command that runs a module of this package, with this interpreter."""
    return sys.executable, "-m", module


class Supervisor:
    """Of one process, which reads the configuration itself.

    The process is no part of the controller, so a dashboard with many visitors, or a store that hangs, delays no check. It ends
    when the controller ends, whatever ends that.
    """

    def __init__(self, segment: Segment, error_log: str, what: str, command: Sequence[str], clock: Clock = monotonic) -> None:
        """`what`: the process' name in messages. `error_log`: the file that its own messages go to; empty: standard error."""
        self._what = what
        self._arguments = [*command, segment.name, "--descriptor", str(segment.descriptor), "--controller", str(os.getpid()),
                           *(("--log", error_log) if error_log else ())]
        self._descriptor = segment.descriptor
        self._clock = clock
        self._wanted: Section | None = None
        self._served: Section | None = None  # by the process that runs
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = self._next_start = self._kill_at = 0.0
        self._failures = 0  # in a row

    def use(self, section: Section | None) -> None:
        """Serve this section from the next look on; None: nothing."""
        self._wanted = section

    def look(self) -> None:
        """Start, end or replace the process if that is needed. Call this a few times a second, from the main thread: the kernel
        ends the process when the thread that started it ends."""
        if self._process is not None and self._process.poll() is not None:
            self._note_end(self._process.returncode)
        if self._process is not None:
            if self._served != self._wanted:
                self._end(self._process)
        elif self._wanted is not None and self._clock() >= self._next_start:
            self._start(self._wanted)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()

    def _start(self, section: Section) -> None:
        import subprocess  # memory of each controller, and one without [admin] and [cluster] starts nothing

        self._started_at, self._kill_at, self._served = self._clock(), 0.0, section
        try:
            self._process = subprocess.Popen(self._arguments, stdin=subprocess.DEVNULL, pass_fds=[self._descriptor])
        except OSError as exc:
            log.error("%s cannot be started, which is tried again in %.0f s: %s: %s", self._what, self._wait_s(),
                      self._arguments[0], exc)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        now = self._clock()
        if not self._kill_at:
            self._kill_at = now + _PATIENCE_S
            process.terminate()
        elif now >= self._kill_at:
            process.kill()

    def _note_end(self, code: int) -> None:
        self._process = None
        if self._kill_at:
            self._failures, self._next_start = 0, 0.0
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        log.error("%s %s; it is started again in %.0f s", self._what, how, self._wait_s())

    def _wait_s(self) -> float:
        """The time until the next start after a failure now: 0, 1, 3, 7 s and so on."""
        now = self._clock()
        if now - self._started_at >= _WELL_S:
            self._failures = 0
        wait_s = min(2.0 ** self._failures - 1, _LONGEST_WAIT_S)
        self._failures = min(self._failures + 1, 10)
        self._next_start = now + wait_s
        return wait_s
