"""Killing a process between any two of its stores: one machine instruction after the other, by ptrace(2).

The memory is shared, so the test sees every store of the process. A death matters by what was stored before it: between two
stores all moments are the same to those that live on.
"""
from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

import pytest

from tests.unit.shared.processes import Child

_TRACEME, _SINGLESTEP = 0, 9

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def stores(memory: memoryview, prepare: Callable[[], Callable[[], object]], most: int, more: int = 0) -> int:
    """Run what `prepare` returns in a forked process, and kill it `more` instructions after store number `most` into `memory`.

    Returns how many stores it made that changed something: less than `most` when it came to its end before.
    """

    def work() -> None:
        run = prepare()
        _trace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        run()
        os.kill(os.getpid(), signal.SIGSTOP)

    child = Child(work)
    try:
        assert _stopped_by(child.pid) == signal.SIGSTOP
        made, before = 0, bytes(memory)
        while made < most and _steps_on(child.pid):
            after = bytes(memory)
            if after != before:
                made, before = made + 1, after
        for _ in range(more):
            _steps_on(child.pid)
        return made
    finally:
        child.kill()


def _steps_on(pid: int) -> bool:
    """Let it do one instruction; whether it is still at work."""
    _trace(_SINGLESTEP, pid)
    return _stopped_by(pid) == signal.SIGTRAP


def _stopped_by(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    assert os.WIFSTOPPED(status), f"it ended: {os.waitstatus_to_exitcode(status)}"
    return os.WSTOPSIG(status)


def _trace(request: int, pid: int) -> None:
    if _ptrace(request, pid, None, None) < 0:
        error = ctypes.get_errno()
        if request == _TRACEME:
            os._exit(0)
        raise OSError(error, os.strerror(error))


def can_trace() -> bool:
    """Whether this machine lets a process trace its child; containers may forbid it."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _ptrace(_TRACEME, 0, None, None) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


needs_trace = pytest.mark.skipif(not can_trace(), reason="ptrace(2) is not allowed here")
