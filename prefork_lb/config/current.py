"""The configuration in force: a broken file does not end a running balancer.

gunicorn's master loads the configuration with its settings, at the start and at every reload (HUP). Its workers are forked
from it and inherit what it remembers here. So a reload that finds a broken file leaves master and new workers with the last
good configuration. And a worker that replaces one that died goes by the same configuration as its siblings, whatever is in
the file by then.
"""
from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping

from prefork_lb.config.copies import Copies
from prefork_lb.config.load import find_and_load
from prefork_lb.config.model import Config
from prefork_lb.config.passwords import read_passwords
from prefork_lb.config.secrets import read_secrets
from prefork_lb.errors import ConfigError

log = logging.getLogger("prefork_lb")

_last_good: Config | None = None
_copies: Copies | None = None  # of the files that it names; in a master, and inherited by its workers
_told: tuple[str, ...] = ()  # the notices of the last good one, which are in the log already
_read_at = 0
_master = 0  # the process that loads it with its settings, for itself and its workers; 0: there is none


def load_as_master() -> Config:
    """`load_or_keep`, by gunicorn's master: its workers do not read the file again."""
    global _master, _read_at
    config = load_or_keep(for_workers=True)
    _master, _read_at = os.getpid(), time.monotonic_ns()
    return config


def read_at() -> int:
    """When this worker's master last read the configuration, in nanoseconds of the monotonic clock: at its start, or at a reload.

    0: the master reads none, its workers do.
    """
    return _read_at if _master not in (0, os.getpid()) else 0


def load_as_worker() -> Config:
    """What this worker's master has loaded. Without our settings a master loads nothing: `load_or_keep` then.

    Raises ConfigError.
    """
    if _last_good is not None and _master not in (0, os.getpid()):
        return _last_good
    return load_or_keep()


def path_of(file: str) -> str:
    """Where this process reads a file that the configuration names: in a worker, its master's copy. So all siblings have the
    same, also when the file is gone or half written by now."""
    return _copies.path(file) if _copies is not None else file


def secrets_in(file: str) -> tuple[bytes, ...]:
    """The secrets in a file that the configuration names. Raises ValueError."""
    return read_secrets(path_of(file))


def passwords_in(file: str) -> Mapping[bytes, bytes]:
    """The users in a file that the configuration names, and the hashes of their passwords. Raises ValueError."""
    return read_passwords(path_of(file))


def load_or_keep(for_workers: bool = False) -> Config:
    """The configuration that is found, or the last good one when that fails. Raises ConfigError when there is none.

    `for_workers`: the files that it names are copied, for processes that are forked from this one. Its notices are logged, once
    for a master and its workers.
    """
    global _last_good, _copies, _told
    try:
        config, notices = find_and_load()
        before, _copies = _copies, Copies(config) if for_workers else None
        if before is not None:
            before.close()
        _last_good = config
        told, _told = _told, notices
        for notice in notices:
            if notice not in told:
                log.warning("%s", notice)
    except ConfigError as exc:
        if _last_good is None:
            raise
        log.error("the configuration is bad, the last good one of %s stays in force:\n%s", _last_good.source, exc)
    return _last_good
