"""SIGQUIT ends a gthread worker wherever it is."""
from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.place import clean_environment

# gunicorn's worker as far as its handler goes, at the moment at which it hands a connection to its threads.
CODE = """
import os, signal, sys, time
from gunicorn.config import Config
from gunicorn.workers.gthread import ThreadWorker
from prefork_lb.gunicorn.quick_end import end_without_the_pool

number = int(sys.argv[1])
worker = ThreadWorker(1, os.getppid(), [], None, 30, Config(), None)
worker.tpool = worker.get_thread_pool()
worker.tpool.submit(int).result()
signal.signal(number, worker.handle_quit)
end_without_the_pool(worker)
with worker.tpool._shutdown_lock:
    os.kill(os.getpid(), number)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_a_worker_that_hands_a_connection_to_its_threads_ends_at_once(number: signal.Signals) -> None:
    """gunicorn's handler takes the lock that the worker then holds, and waited for ever."""
    worker = subprocess.run([sys.executable, "-c", CODE, str(int(number))], timeout=20, check=False, env=clean_environment())
    assert worker.returncode == 0


def test_a_handler_of_the_site_stays() -> None:
    code = CODE.replace("worker.handle_quit", "lambda *_: os._exit(7)")
    worker = subprocess.run([sys.executable, "-c", code, str(int(signal.SIGQUIT))], timeout=20, check=False,
                            env=clean_environment())
    assert worker.returncode == 7
