"""What /proc shows of processes."""
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prefork_lb.scaling import keepers, tree
from prefork_lb.scaling.tree import command_line


def test_a_process_that_has_just_begun_has_its_command_line() -> None:
    """The parent goes on before the kernel has set the command line up: nine times of ten it is read too early here."""
    for number in range(50):
        words = [sys.executable, "-I", "-S", "-c", "input()", str(number)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE)
        try:
            assert command_line(process.pid, time.monotonic() + 20) == words
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
    assert command_line(pid, time.monotonic() + 20) == [], "a zombie"
    os.waitpid(pid, 0)
    with pytest.raises(OSError):
        command_line(pid, time.monotonic() + 20)
    if is_kernels(2):
        assert command_line(2, time.monotonic() + 20) == [], "a thread of the kernel"


class Nap(Exception):
    """Somebody waits."""


def nap(seconds: float) -> None:
    raise Nap


def test_a_process_without_a_command_line_is_waited_for_only_while_it_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"")
    monkeypatch.setattr(time, "sleep", nap)
    monkeypatch.setattr(tree, "_YOUNG_S", float("inf"))
    with pytest.raises(Nap):
        command_line(os.getpid(), time.monotonic() + 20)
    assert command_line(os.getpid(), time.monotonic()) == [], "it is waited for no longer than that"
    monkeypatch.setattr(tree, "_YOUNG_S", 0.0)
    assert command_line(os.getpid(), time.monotonic() + 20) == []


def test_a_look_for_keepers_waits_for_all_processes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(keepers, "command_line", lambda pid, until: waits.append(until) or [])  # type: ignore[func-returns-value]
    assert list(keepers.keepers("none")) == []
    assert waits and len(set(waits)) == 1
