"""Keeps the controller running, from the workers' side.

Every worker watches the controller. Shared memory holds its pid, its sign of life, the time of the last start and the number of
failed starts. A worker that finds something to do takes the turn under the ledger's lock, so only one worker acts.
"""
from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from prefork_lb.controller.exit_codes import ANOTHER_RUNS
from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive, start_time
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import now_ms

_COMMAND = (sys.executable, "-m", "prefork_lb.controller")
_LEAST_GAP_MS = 500
_FIRST_WAIT_MS = 1000  # after a failed start; doubled after each further one
_LONGEST_WAIT_MS = 30_000
# A controller without a sign of life for this many milliseconds counts as frozen. A new one has to load its modules first.
_FROZEN_MS = 10_000
_SLOW_START_MS = 30_000
# This worker must also have looked this often in that time: after a pause of the whole machine, a long silence means nothing.
_FROZEN_LOOKS = 10
# The newest master's workers start the controller. An older master's workers start it after this many looks without one.
_OTHERS_TURN_LOOKS = 20

log = logging.getLogger("prefork_lb")


class Launcher:
    """Starts the instance's controller when there is none, and replaces one that is frozen or of another master.

    Of two controllers that are started at once, one ends itself.
    """

    def __init__(self, segment: Segment, ledger: Ledger, master: int, error_log: str, command: Sequence[str] = _COMMAND,
                 now_ms: Callable[[], int] = now_ms) -> None:
        """`master` is the pid of this worker's gunicorn master. `error_log` is the file that the controller's messages go to;
        empty: standard error. `now_ms` are milliseconds of the monotonic clock."""
        self._segment = segment
        self._ledger = ledger
        self._master = master
        # The segment is passed on as an open file: its name may have been removed.
        self._arguments = [*command, segment.name, "--descriptor", str(segment.descriptor),
                           *(("--log", error_log) if error_log else ())]
        self._now_ms = now_ms
        self._processes: list[subprocess.Popen[bytes]] = []  # started by this worker; their end was not noticed yet
        self._sign = 0, 0  # the controller's pid and its beat at the last look
        self._silent_since = now_ms()
        self._silent_looks = 0
        self._missing_looks = 0

    def look(self) -> None:
        """Start or replace the controller if that is needed. Call this a few times a second."""
        # A killed process with threads counts as dead as soon as it is a zombie in /proc. Its exit code can be read only when its
        # last thread has ended. The next controller may run by then, so this is a list.
        self._processes = [process for process in self._processes if not self._reap(process)]
        cells = self._segment.cells
        is_ours = cells[at.H_CONTROLLER_MASTER] == self._master
        sign = cells[at.H_CONTROLLER], cells[at.H_BEAT]
        if sign != self._sign:
            self._sign, self._silent_since, self._silent_looks = sign, self._now_ms(), 0
            if is_ours and sign[1]:
                self._missing_looks = 0
                return
        self._silent_looks += 1
        is_running = is_alive(cells[at.H_CONTROLLER], cells[at.H_CONTROLLER + 1])
        self._missing_looks = 0 if is_running else self._missing_looks + 1
        if is_running and is_ours and not self._is_frozen():
            return
        if not self._is_in_charge() and self._missing_looks < _OTHERS_TURN_LOOKS:
            return
        if not is_running:
            self._start()
        elif not is_ours:
            self._replace_other(sign[0])
        else:
            self._replace_frozen(sign[0])

    def _is_in_charge(self) -> bool:
        """Whether this worker's master is the newest one of the instance."""
        return self._segment.masters()[-1:] == [self._master]

    def _is_frozen(self) -> bool:
        silent_ms = self._now_ms() - self._silent_since
        return self._silent_looks >= _FROZEN_LOOKS and silent_ms > (_FROZEN_MS if self._sign[1] else _SLOW_START_MS)

    def _replace_frozen(self, pid: int) -> None:
        cells = self._segment.cells
        with self._ledger.locked():
            if cells[at.H_CONTROLLER] != pid or cells[at.H_BEAT] != self._sign[1]:
                return  # another worker was faster, or the controller gave a sign of life
            cells[at.H_CONTROLLER] = 0
        silent_s = (self._now_ms() - self._silent_since) / 1000
        log.error("the controller (pid %d) has not moved for %.0f s; it is killed, and another one is started", pid, silent_s)
        _signal(pid, signal.SIGKILL)

    def _replace_other(self, pid: int) -> None:
        """End the controller of another master: it may be of another version, and that master may be about to end."""
        cells = self._segment.cells
        with self._ledger.locked():
            other = cells[at.H_CONTROLLER_MASTER]
            if other == self._master or cells[at.H_CONTROLLER] != pid:
                return
            cells[at.H_CONTROLLER_MASTER] = self._master
            cells[at.H_STARTS] = 0
        log.info("the controller (pid %d) is of another gunicorn master (%d); it is replaced", pid, other)
        _signal(pid, signal.SIGTERM)

    def _start(self) -> None:
        if not self._take_turn():
            return
        try:
            # In a session of its own: Ctrl-C at the terminal must reach only the master. The controller ends when the master has.
            process = subprocess.Popen(self._arguments, stdin=subprocess.DEVNULL, start_new_session=True,
                                       pass_fds=[self._segment.descriptor])
        except OSError as exc:
            log.error("the controller cannot be started, which is tried again in %s: %s: %s",
                      self._next_start(), self._arguments[0], exc)
            return
        cells = self._segment.cells
        with self._ledger.locked():
            if not is_alive(cells[at.H_CONTROLLER], cells[at.H_CONTROLLER + 1]):
                # Recorded now, so that no other worker starts one while this one loads its modules.
                cells[at.H_CONTROLLER + 1] = start_time(process.pid)
                cells[at.H_CONTROLLER] = process.pid
        self._processes.append(process)

    def _take_turn(self) -> bool:
        """Whether this worker may start a controller now: none runs, and the last start was long enough ago."""
        cells = self._segment.cells
        with self._ledger.locked():
            now = self._now_ms()
            wait_ms = _wait_ms(cells[at.H_STARTS]) if cells[at.H_STARTED] else 0
            if now - cells[at.H_STARTED] < wait_ms or is_alive(cells[at.H_CONTROLLER], cells[at.H_CONTROLLER + 1]):
                return False
            cells[at.H_STARTED] = now
            cells[at.H_STARTS] += 1
            cells[at.H_BEAT] = 0
            cells[at.H_CONTROLLER_MASTER] = self._master
            return True

    def _reap(self, process: subprocess.Popen[bytes]) -> bool:
        """Read the exit code of a process that has ended, and log a failure. Whether it has ended."""
        code = process.poll()
        if code is None:
            return False
        if code in (0, ANOTHER_RUNS):
            return True
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        log.error("the controller (pid %d) %s; the next start is in %s", process.pid, how, self._next_start())
        return True

    def _next_start(self) -> str:
        cells = self._segment.cells
        left_ms = cells[at.H_STARTED] + _wait_ms(cells[at.H_STARTS]) - self._now_ms()
        return f"{max(0, left_ms) / 1000:.1f} s"


def _wait_ms(starts: int) -> int:
    """The least time from one start to the next, in milliseconds, after `starts` failed starts."""
    return min(_FIRST_WAIT_MS << min(starts - 1, 10), _LONGEST_WAIT_MS) if starts else _LEAST_GAP_MS


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # the process has already ended
