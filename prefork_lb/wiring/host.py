"""The gunicorn process that this application runs in, as far as it can be told from inside."""
from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable

from prefork_lb.gunicorn.internals import Worker as GunicornWorker
from prefork_lb.proxy.logged_text import make_printable

log = logging.getLogger("prefork_lb")


def gunicorn_worker() -> GunicornWorker | None:
    """The gunicorn worker that this process is; None if it is none. A worker has taken its signals over."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return worker if isinstance(worker, GunicornWorker) else None


def gunicorn_master() -> int:
    """The pid of the gunicorn master whose worker this process is; 0 if it is none.

    A worker knows its master also when that is dead and it has another parent by now.
    """
    worker = gunicorn_worker()
    return int(worker.ppid) if worker is not None else 0


def predecessor() -> int:
    """The pid of the master that this one replaces: gunicorn tells it so at an upgrade by USR2. 0: there is none."""
    pid = os.environ.get("GUNICORN_PID", "")
    return int(pid) if pid.isdigit() else 0


def configured_workers() -> int:
    """How many workers gunicorn's settings ask for: its command line wins over ours. 1 without gunicorn."""
    worker = gunicorn_worker()
    return int(worker.cfg.workers) if worker is not None else 1


def is_sync_worker() -> bool:
    """Whether this process is a worker of gunicorn's that serves one request and does nothing else meanwhile."""
    worker = gunicorn_worker()
    return worker is not None and worker.cfg.worker_class_str == "sync"


def error_log_file() -> str:
    """The file that gunicorn's messages go to; empty: standard error."""
    worker = gunicorn_worker()
    name = worker.cfg.errorlog if worker is not None else "-"
    return "" if name in ("-", None) else os.path.abspath(name)


def log_like_gunicorn() -> None:
    """Write our log lines where gunicorn writes its own, unless the site has set up something else."""
    worker = gunicorn_worker()
    if worker is not None:
        make_printable(worker.log)
    gunicorn = logging.getLogger("gunicorn.error")
    if gunicorn.handlers and not log.hasHandlers():
        log.handlers = gunicorn.handlers
        log.setLevel(gunicorn.level)


def on_reopen(reopen: Callable[[], None]) -> None:
    """Call `reopen` when gunicorn reopens its own logs: at SIGUSR1, in the handler of that signal."""
    worker = gunicorn_worker()
    if worker is None:
        return
    before = worker.log.reopen_files

    def reopen_all() -> None:
        before()
        reopen()

    worker.log.reopen_files = reopen_all


def nap(seconds: float) -> None:
    """Sleep while this worker starts: the master hears from it, and ends it when it is told to end.

    Raises SystemExit when the worker has been told to end, or its master has ended.
    """
    worker = gunicorn_worker()
    if worker is not None:
        worker.notify()
        if not worker.alive or worker.ppid != os.getppid():
            raise SystemExit(0)
    time.sleep(seconds)
