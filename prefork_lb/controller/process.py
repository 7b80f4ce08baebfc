"""The controller: one process beside the workers of an instance. It decides what they go by; no request passes through it.

It holds a lock on the segment's file for its whole life, so there are never two. Workers start it again when it dies.
It ends when the last master of its instance has ended.
"""
from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

from prefork_lb import memory
from prefork_lb.config.published import decode_published
from prefork_lb.controller.active_checks import ActiveChecks
from prefork_lb.controller.cluster_duty import ClusterDuty
from prefork_lb.controller.discovery_duty import DiscoveryDuty
from prefork_lb.controller.duties import Duties, do_at_the_end
from prefork_lb.controller.exit_codes import ANOTHER_RUNS
from prefork_lb.controller.leaving_duty import LeavingDuty
from prefork_lb.controller.scaling_duty import ScalingDuty
from prefork_lb.controller.state_saver import StateSaver
from prefork_lb.controller.statsd_sender import StatsDSender
from prefork_lb.controller.supervisor import Supervisor, command_of
from prefork_lb.error_log import log_to
from prefork_lb.shared import layout as at
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.finding import open_inherited
from prefork_lb.shared.identity import myself
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import published
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.sweeping import Sweeper

_EVERY_S = 0.25
_PATIENCE_S = 2.0
_LOCK_LOOK_S = 0.05

log = logging.getLogger("prefork_lb")


def run(segment_name: str, descriptor: int, error_log: str = "") -> int:
    """Be the controller of the instance with this segment until it ends; the process' exit code.

    `descriptor` is the segment's file as the worker has passed it on: the file may have lost its name.
    """
    log_to(error_log)
    segment = open_inherited(descriptor, segment_name)
    os.close(descriptor)
    if segment is None:
        log.error("%s has the format of another version of prefork_lb: the package was replaced while gunicorn runs. No "
                  "controller can be started, so servers are not checked and states are not saved. Restart gunicorn, or upgrade "
                  "it by SIGUSR2", segment_name)
        return 0
    if not _take_lock(segment.descriptor):
        return ANOTHER_RUNS
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the master's; it may be signalled as a group
    Controller(segment, error_log).run(stop)
    return 0


class Controller:
    """The duties of the controller, each done four times a second."""

    def __init__(self, segment: Segment, error_log: str) -> None:
        self._segment = segment
        self._ledger = Ledger(segment, takes_row=False)
        states = States(segment)
        self._checks = ActiveChecks(segment, self._ledger, states)
        self._saver = StateSaver(segment, states)
        self._discovery = DiscoveryDuty(segment, self._ledger, states)
        self._leaving = LeavingDuty(segment, self._ledger, states)
        self._admin = Supervisor(segment, error_log, "the administration interface", command_of("prefork_lb.admin"))
        self._scaling = ScalingDuty(segment, self._ledger, states, self._beat, error_log)
        self._sender = StatsDSender(segment)
        self._sharing = ClusterDuty(segment, self._ledger, states, error_log)
        self._is_over = False
        self._duties = Duties({
            "see whether the instance runs": self._look_for_masters,
            "take over the configuration": self._take_over_configuration,
            "hand out checks": self._checks.look,
            "discover servers": self._discovery.look,
            "remove servers that have left": self._leaving.look,
            "keep the administration interface running": self._admin.look,
            "scale pools": self._scaling.look,
            "share with other balancers": self._sharing.look,
            "sweep": Sweeper(segment, self._ledger, states).sweep,
        })
        self._mark = 0  # of the configuration that was read last
        self._to_use: list[Callable[[], None]] = []  # what is left to do until all duties go by it
        with self._ledger.locked():
            segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1] = myself()
            record_event(segment, EventKind.CONTROLLER_STARTED, f"controller {os.getpid()} started")

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set or the instance has ended."""
        log.info("controller of gunicorn %s", ", ".join(map(str, self._segment.masters())))
        try:
            while True:
                self._duties.look()
                if self._is_over:
                    break
                self._beat()
                if stop.wait(_EVERY_S):
                    break
        finally:
            do_at_the_end({
                "end the scaling of pools": partial(self._scaling.close, self._is_over),
                "end the administration interface": self._admin.close,
                "end discovery": self._discovery.close,
                "end the process that shares with other balancers": self._sharing.close,
                "end the checks": self._checks.close,
                "write the state file": self._saver.close,
                "end StatsD": self._sender.close,
            }, self._beat)
            self._wait_for_servers(stop)

    def _wait_for_servers(self, stop: threading.Event) -> None:
        """Until the servers have ended that are to end with the instance. Its last master waits for this process."""
        until = time.monotonic() + self._scaling.closes_within_s
        while not self._scaling.is_closed and time.monotonic() < until and not stop.wait(_LOCK_LOOK_S):
            self._beat()

    def _look_for_masters(self) -> None:
        self._is_over = not self._segment.masters()

    def _beat(self) -> None:
        """Give the workers a sign of life: they replace a controller that gives none."""
        cells = self._segment.cells
        cells[at.H_BEAT] = now_ms()
        if cells[at.H_STARTS]:
            cells[at.H_STARTS] = 0  # this start has not failed

    def _take_over_configuration(self) -> None:
        """Let each duty go by the configuration in force. One that cannot is asked again at the next look."""
        if self._segment.cells[at.H_CONFIGURATION] != self._mark:
            self._read_configuration()
        if not self._to_use:
            return
        failure: Exception | None = None
        for use in list(self._to_use):
            try:
                use()
            except Exception as exc:
                failure = failure or exc
            else:
                self._to_use.remove(use)
        if failure is not None:
            raise failure
        memory.give_back()

    def _read_configuration(self) -> None:
        mark, data = published(self._segment)
        if not data:
            return
        config, left_out = decode_published(data)
        if left_out:
            log.warning("%s: this version of the controller does not know %s; it goes by the rest",
                        config.source, ", ".join(left_out))
        state = config.state
        self._to_use = [
            partial(self._checks.use, config), partial(self._leaving.use, config), partial(self._discovery.use, config),
            partial(self._admin.use, config.admin), partial(self._scaling.use, config), partial(self._sender.use, config.metrics),
            partial(self._sharing.use, config.cluster),
            partial(self._saver.use, state.file, state.max_age, os.path.abspath(config.source))]
        self._mark = mark


def _take_lock(descriptor: int) -> bool:
    """Take the lock that one controller of an instance holds for its whole life. Whether this process has it now.

    A controller that was killed or replaced may still be ending: this waits up to two seconds for the lock.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(_LOCK_LOOK_S)
