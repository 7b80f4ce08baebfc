"""The error log: as JSON, where the configuration wants that, and how the processes beside the workers write it."""
from __future__ import annotations

import json
import logging
import os
import re
import sys
import time

JSON_VARIABLE = "PREFORK_LB_JSON_ERRORS"
"""Is set in the environment of an instance whose error log is JSON: the processes beside the workers inherit it."""

# How messages about a pool or a server of it begin.
_PLACE = re.compile(r"pool ([\w.-]+): (?:server (\S+): )?")


class JSONFormatter(logging.Formatter):
    """One object a line: time, level, pid and message; pool and server where a message is about them; the traceback of an error.

    The first three, and the pool and the server, have the names and forms that they have in the access log.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        whole, milliseconds = divmod(int(record.created * 1000), 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        entry: dict[str, object] = {"time": f"{moment}.{milliseconds:03d}Z", "level": record.levelname.lower(),
                                    "pid": record.process}
        if place := _PLACE.match(message):
            entry |= {name: value for name, value in zip(("pool", "server"), place.groups(), strict=True) if value}
        entry["message"] = message
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def log_to(file: str) -> None:
    """Send what this package logs, from INFO on, to a file, as gunicorn writes it; empty: to standard error."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file:
        from logging.handlers import WatchedFileHandler  # it opens the file anew when that was moved away, by log rotation
        handler = WatchedFileHandler(file)
    date_format = "%Y-%m-%d %H:%M:%S " + time.strftime("%z")  # as gunicorn writes it
    handler.setFormatter(JSONFormatter() if os.environ.get(JSON_VARIABLE) else
                         logging.Formatter("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", date_format))
    log = logging.getLogger("prefork_lb")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
