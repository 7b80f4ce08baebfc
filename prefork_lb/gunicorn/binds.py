"""Which addresses gunicorn listens on."""
from __future__ import annotations

import logging

from prefork_lb.config.model import Config
from prefork_lb.net.bind_check import why_not_bound

_bound: list[str] = []  # what this master listens on

log = logging.getLogger("prefork_lb")


def binds(config: Config) -> list[str]:
    """The addresses to listen on.

    At a reload gunicorn closes its sockets before it opens the new ones, and ends when it cannot open one. So new addresses are
    tried here first. When one of them fails, the addresses of before stay in force.
    """
    global _bound
    wanted = list(config.listen.bind)
    for bind in wanted if _bound else ():
        problem = "" if bind in _bound else why_not_bound(bind, _bound)
        if problem:
            log.error("%s: listen.bind: %s: %s; %s stay in force", config.source, bind, problem, ", ".join(_bound))
            return _bound
    _bound = wanted
    return wanted
