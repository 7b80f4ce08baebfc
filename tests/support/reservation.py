"""Reserves the place where one test process lives: a loopback address and a folder for shared memory that no other one has.

Tests run side by side, in one run and in several. A port that a test has given back may be bound a moment later by any
other program on that address, and a command such as `prefork-lb status` sees every instance in its folder. So each test
process takes a place of its own: 127.0.N.1, and a folder of that number. The kernel sees to it that no two processes have
the same number, by a socket that each keeps bound; it lets go of the socket when the process dies, however it dies.

`tests/conftest.py` reserves it before anything is imported that reads the environment.
"""
from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

HOST_VARIABLE, SHM_VARIABLE = "TESTS_HOST", "PREFORK_LB_SHM"
_NEVER_INHERITED = ("PREFORK_LB_", "GUNICORN_")
_OF_THE_RUN = (SHM_VARIABLE, "PREFORK_LB_PURE", "PREFORK_LB_NATIVE")  # where and with which modules it runs
_RESERVED_PORT = 20_000  # below the ports that the kernel gives out by itself
_PLACES = range(1, 255)
_LONGEST_FOLDER = 40  # bytes; a unix socket's path has 107, and pytest's folders with the test's own take up to 60


class Place:
    """A reserved number. `enter` puts the process there, `leave` removes what it leaves behind."""

    def __init__(self) -> None:
        self._socket, self.number = _reserve()
        self.host = f"127.0.{self.number}.1"
        base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
        self.shared_memory = base / f"prefork-lb-tests-{os.geteuid()}-{self.number}"

    def enter(self) -> None:
        """Set the environment that the tests' own code and its children go by."""
        shutil.rmtree(self.shared_memory, ignore_errors=True)  # of a run that was killed
        self.shared_memory.mkdir(mode=0o700)
        os.environ[HOST_VARIABLE], os.environ[SHM_VARIABLE] = self.host, str(self.shared_memory)

    def leave(self) -> None:
        shutil.rmtree(self.shared_memory, ignore_errors=True)
        self._socket.close()


def _reserve() -> tuple[socket.socket, int]:
    for number in _PLACES:
        reserved = socket.socket()
        try:
            reserved.bind((f"127.0.{number}.1", _RESERVED_PORT))
        except OSError:
            reserved.close()
            continue
        return reserved, number
    raise RuntimeError(f"port {_RESERVED_PORT} is in use on all of 127.0.1.1 to 127.0.{_PLACES[-1]}.1")


def is_configuration(variable: str) -> bool:
    """Whether an environment variable configures the balancer or gunicorn, and is not one that the run itself is about."""
    return variable.startswith(_NEVER_INHERITED) and variable not in _OF_THE_RUN


def forget_the_shell() -> None:
    """Undo what the shell that started the run may have left: children inherit ignored signals and the terminal's size.

    `nohup make test &` ignores SIGHUP and SIGINT, which no program that the tests start would do at an operator's. Where
    PYTHONDONTWRITEBYTECODE is set, as in many containers, each of the hundreds of balancers would compile the package anew.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "PYTHONUNBUFFERED", "PYTHONWARNINGS",
                 "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = False
    os.environ["TERM"] = "dumb"
    for name in list(os.environ):
        if is_configuration(name) or name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            del os.environ[name]
    os.umask(0o022)


def short_folder() -> str | None:
    """A folder for temporary files when that of the environment is too long for unix sockets; None when it is good."""
    if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_FOLDER:
        return None
    return tempfile.mkdtemp(prefix="tests-", dir="/tmp")
