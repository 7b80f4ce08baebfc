"""How the processes beside the workers write gunicorn's error log."""
from __future__ import annotations

import logging
import logging.handlers
import sys
import time


def log_to(file: str) -> None:
    """Send what this package logs, from INFO on, to a file, in gunicorn's format; empty: to standard error."""
    # WatchedFileHandler opens the file anew when it was moved away, as log rotation does.
    handler: logging.Handler = logging.handlers.WatchedFileHandler(file) if file else logging.StreamHandler(sys.stderr)
    date_format = "%Y-%m-%d %H:%M:%S " + time.strftime("%z")  # as gunicorn writes it
    handler.setFormatter(logging.Formatter("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", date_format))
    log = logging.getLogger("prefork_lb")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
