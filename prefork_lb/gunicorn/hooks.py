"""gunicorn's hooks: what happens at the start of the master, in a new worker, and at the master's end.

Imports what it needs inside the hooks: gunicorn reads this module with its settings, and what is imported then is loaded before
gevent patches the standard library.
"""
from __future__ import annotations

import gc
import logging
from typing import Any

log = logging.getLogger("prefork_lb")


def on_starting(server: Any) -> None:
    """Load the application's modules for all workers, and let replaced workers linger while they have clients.

    By now gevent has patched the standard library, if it is to. Each worker would spend a tenth of a second on the modules, and
    keep a copy of them to itself. So one master's workers are of one version: a new version is taken over by USR2, not by HUP.
    """
    import prefork_lb.wiring.application  # noqa: F401  # loading it is the point
    from prefork_lb import memory
    from prefork_lb.gunicorn.lingering_master import let_workers_linger
    from prefork_lb.native.loader import compiled
    from prefork_lb.native.switches import is_pure
    from prefork_lb.shared.lingering import lingering_workers

    # A worker's garbage collector writes to every object that it looks at, and the kernel copies each page that is written to:
    # 5 to 15 MiB a worker at the first full run. The collector does not look at what is frozen.
    gc.collect()
    gc.freeze()
    memory.give_back()
    if not compiled() and not is_pure():
        server.log.info("the compiled modules are not in use, so a request costs more; a wheel or a C compiler brings them")
    problem = let_workers_linger(server, lambda: lingering_workers(server.pid))
    if problem:
        log.warning("replaced workers end within graceful_timeout, whatever listen.linger says: %s", problem)


def post_worker_init(worker: Any) -> None:
    """Let a worker join its instance before its first request, so that tools see it at once, and end in good order."""
    import atexit
    import signal

    from prefork_lb.gunicorn.quick_end import end_without_the_pool
    from prefork_lb.wiring.application import Application

    if isinstance(worker.wsgi, Application):
        worker.wsgi.start()
    end_without_the_pool(worker)
    # The master tells a worker that it replaced to end, and tells it again while the worker is still there. But Python takes the
    # handlers away before the process is over: the worker died of the signal then, which gunicorn reports as an error.
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)


def on_exit(server: Any) -> None:
    """Remove the instance's shared memory when its last master ends normally, and wait for the servers that scaling has started.

    After a kill, the next start removes it.
    """
    from prefork_lb.shared.ending import end_instance

    end_instance(server.pid)
