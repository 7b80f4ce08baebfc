"""The controller: one process beside the workers of an instance, which decides what they go by and is on no request's way.

It holds a lock on the segment's file for as long as it lives, so there are never two; workers start it again when it dies.
It ends when the last master of its instance has ended, or its memory was removed.
"""
from __future__ import annotations

import contextlib
import fcntl
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from prefork_lb.config.model import Config
from prefork_lb.controller.active_checks import ActiveChecks
from prefork_lb.shared import layout as at
from prefork_lb.shared.desired import published
from prefork_lb.shared.identity import myself
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.saved import save
from prefork_lb.shared.segment import DIRECTORY, Segment, exists, open_segment
from prefork_lb.shared.states import States
from prefork_lb.shared.table import free_unused

_EVERY_S = 0.25
_MASTERS_EVERY_S = 0.25

log = logging.getLogger("prefork_lb")


def run(segment_name: str, error_log: str = "") -> int:
    """Be the controller of the instance with this segment until it ends; the process' exit code."""
    _log_to(error_log)
    with _only_one(segment_name) as is_mine:
        segment = open_segment(segment_name) if is_mine else None
        if segment is None:
            return 0
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # the master's; it may be signalled as a group
        Controller(segment).run(stop)
    return 0


class Controller:
    """What is done again and again, a few times a second."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._ledger = Ledger(segment, takes_row=False)
        self._states = States(segment)
        self._checks = ActiveChecks(segment, self._ledger, self._states)
        self._mark = 0
        self._state_file: Path | None = None
        self._saved_changes = -1
        with self._ledger.locked():
            segment.cells[at.H_CONTROLLER], segment.cells[at.H_CONTROLLER + 1] = myself()

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set or the instance has ended."""
        log.info("controller of gunicorn %s", ", ".join(map(str, self._segment.masters())))
        try:
            while self._instance_lives():
                self._look()
                if stop.wait(_EVERY_S):
                    break
        finally:
            self._checks.close()

    def _instance_lives(self) -> bool:
        return bool(self._segment.masters()) and exists(self._segment.name)

    def _look(self) -> None:
        try:
            self._take_over_configuration()
            self._checks.look()
            reclaimed = self._ledger.reclaim_dead()
            if reclaimed.claims:
                log.warning("%d claims of ended workers given back", reclaimed.claims)
            if reclaimed.workers:
                free_unused(self._segment, self._ledger)
            if self._states.is_time():
                with self._ledger.locked():
                    self._states.let_time_pass()
            self._save()
        except Exception:
            # Whatever it is, the other duties go on; the workers balance without any of this.
            log.exception("the controller failed; it goes on in %g s", _EVERY_S)

    def _take_over_configuration(self) -> None:
        if self._segment.cells[at.H_CONFIGURATION] == self._mark:
            return
        mark, data = published(self._segment)
        if not data:
            return
        config = msgspec.json.decode(data, type=Config)
        self._checks.set_configuration(config)
        self._state_file = Path(config.state.file) if config.state.file else None
        self._saved_changes = -1
        self._mark = mark

    def _save(self) -> None:
        changes = self._states.changes
        if self._state_file is None or changes == self._saved_changes or not self._segment.cells[at.H_RESTORED]:
            return
        try:
            save(self._state_file, self._segment, self._states)
        except OSError as exc:
            log.error("%s: the state is not saved: %s", self._state_file, exc.strerror)
        self._saved_changes = changes


@contextlib.contextmanager
def _only_one(segment_name: str) -> Iterator[bool]:
    """Whether this process is the controller from now on: nobody else can be while it lives."""
    try:
        descriptor = os.open(DIRECTORY / segment_name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # the instance has ended
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def _log_to(error_log: str) -> None:
    # WatchedFileHandler opens the file anew when it was moved away, as log rotation does.
    handler: logging.Handler = logging.handlers.WatchedFileHandler(error_log) if error_log else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", _date_format()))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _date_format() -> str:
    return "%Y-%m-%d %H:%M:%S " + time.strftime("%z")  # as gunicorn writes it
