"""The configuration in force: a file that went bad does not take down what runs.

gunicorn's master loads the configuration with its settings, at the start and at every reload (HUP); its workers are forked
from it and inherit what it remembers here. So when a reload finds a broken file, master and new workers go on with the last
good one.
"""
from __future__ import annotations

import logging

from prefork_lb.config.load import load, notices
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError

log = logging.getLogger("prefork_lb")

_last_good: Config | None = None
_notices: list[str] = []


def load_or_keep() -> Config:
    """The configuration as `load` finds it, or the last good one when that fails. Raises ConfigError when there is none.

    What it asks for and this version does not do is logged, once for a master and its workers.
    """
    global _last_good, _notices
    try:
        _last_good = load()
        told, _notices = _notices, notices(_last_good)
        for notice in _notices:
            if notice not in told:
                log.warning("%s", notice)
    except ConfigError as exc:
        if _last_good is None:
            raise
        log.error("the configuration is bad, the last good one of %s stays in force:\n%s", _last_good.source, exc)
    return _last_good
