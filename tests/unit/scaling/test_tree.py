"""What /proc shows of processes."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefork_lb.scaling.tree import command_line


def test_a_process_that_has_just_begun_has_its_command_line() -> None:
    """The parent goes on before the kernel has set the command line up: nine times of ten it is read too early here."""
    for number in range(50):
        words = [sys.executable, "-I", "-S", "-c", "input()", str(number)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE)
        try:
            assert command_line(process.pid) == words
        finally:
            process.kill()
            process.communicate()


def is_kernels(pid: int) -> bool:
    """Whether this is a thread of the kernel; in a container it is a process like others, or none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "kthreadd\n"
    except OSError:
        return False


def test_a_process_that_is_over_has_none() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert command_line(pid) == [], "a zombie"
    os.waitpid(pid, 0)
    with pytest.raises(OSError):
        command_line(pid)
    if is_kernels(2):
        assert command_line(2) == [], "a thread of the kernel"
