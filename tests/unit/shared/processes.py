"""Real processes for the tests of shared memory: forked, so that they have what the test has, and killed in earnest."""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator

from prefork_lb.shared.identity import start_time


class Child:
    """A forked process that runs a function and ends with status 0, or 1 and a traceback when it raises."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._over = False
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                run()
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Its exit status, or the negative number of the signal that ended it."""
        if not self._over:
            _, status = os.waitpid(self.pid, 0)
            self._over = True
            self._status = os.waitstatus_to_exitcode(status)
        return self._status


@contextlib.contextmanager
def running(run: Callable[[], object], count: int = 1) -> Iterator[list[Child]]:
    """Forked processes that run `run`; those that still do are killed at the end."""
    children: list[Child] = []
    try:
        for _ in range(count):
            children.append(Child(run))
        yield children
    finally:
        for child in children:
            if not child._over:
                child.kill()


class Master:
    """A process that stands in for a gunicorn master: it is there, and it can be killed. Pids never come twice here."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        self.pid = self._process.pid
        self.started = start_time(self.pid)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Signals:
    """A pipe between processes: one side says that something has happened, the other waits for it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def send(self) -> None:
        os.write(self._write, b".")

    def wait(self, count: int = 1) -> None:
        """Wait until `send` was called `count` times."""
        for _ in range(count):
            assert os.read(self._read, 1) == b".", "nobody is left who could send"

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)
