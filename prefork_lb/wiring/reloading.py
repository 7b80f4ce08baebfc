"""A reload from outside of gunicorn: the file is checked first, then the newest master gets SIGHUP."""
from __future__ import annotations

import os
import signal

from prefork_lb.config.load import find_and_load
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError, PreforkLBError
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.wiring.room import problems_at_reload


class ReloadRefused(PreforkLBError):
    """A reload would not take, or no process can be told of it. Nothing has been changed. `problems` are lines."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def file_in_force(segment: Segment) -> Config | None:
    """What the file says now by which the instance runs; None when it runs by variables of the environment, or by no file yet.

    The file's name may be relative to the working directory of the instance, which must be this process' own.
    Raises ConfigError.
    """
    running = configuration_of(segment)
    return find_and_load(running.source)[0] if running is not None and not running.source.startswith("$") else None


def reload(segment: Segment, ledger: Ledger, who: str) -> None:
    """Check the file, and tell the newest master to load it. Raises ReloadRefused. See `file_in_force` on the folder."""
    try:
        config = file_in_force(segment)
    except ConfigError as exc:
        raise ReloadRefused(*exc.problems) from exc
    if config is not None and (problems := problems_at_reload(config, config.listen.worker_count(), segment)):
        raise ReloadRefused(*problems)
    masters = segment.masters()
    if not masters:
        raise ReloadRefused("the instance has ended")
    try:
        os.kill(masters[-1], signal.SIGHUP)
    except OSError as exc:
        raise ReloadRefused(f"gunicorn's master (pid {masters[-1]}) cannot be signalled: {exc.strerror}") from exc
    with ledger.locked():
        record_event(segment, EventKind.AUDIT, "reload", who=who)
