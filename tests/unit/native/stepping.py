"""Killing a process between any two of its stores: one machine instruction after the other, by ptrace(2).

The memory is shared, so the test sees every store of the process. A death matters by what was stored before it: between two
stores all moments are the same to those that live on.
"""
from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

import pytest

from tests.unit.shared.processes import Child

_TRACEME, _SINGLESTEP = 0, 9

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


Prepare = Callable[[], Callable[[], object]]
"""Called in a forked process; returns what this process is to do step by step."""


class Stepper:
    """Runs the work that `prepare` returns in a forked process, and kills it after any of its stores into `cells`.

    A first run goes to the end and tells which cells the work stores into; the others look at these alone. To compare the whole
    memory after each instruction takes longer than the instruction.
    """

    def __init__(self, cells: memoryview, prepare: Prepare) -> None:
        self._cells, self._prepare = cells, prepare
        images: list[bytes] = []

        def look() -> bytes:
            now = cells.tobytes()
            if not images or now != images[-1]:
                images.append(now)
            return now

        self._run(sys.maxsize, 0, look)
        self._watched = sorted({cell for image in images for cell in _different(image, images[0])})

    def stores(self, most: int, more: int = 0) -> int:
        """Kill it `more` instructions after store number `most`.

        Returns how many stores it made that changed something: less than `most` when it came to its end before.
        """
        made, changed = self._run(most, more, lambda: [self._cells[cell] for cell in self._watched])
        assert changed <= set(self._watched), "it stored where the first run did not"
        return made

    def _run(self, most: int, more: int, look: Callable[[], object]) -> tuple[int, set[int]]:
        """`look` tells the stores. Returns how many it told, and the cells that they changed."""
        def work() -> None:
            run = self._prepare()
            _trace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            run()
            os.kill(os.getpid(), signal.SIGSTOP)

        child = Child(work)
        try:
            assert _stopped_by(child.pid) == signal.SIGSTOP
            made, before, image = 0, look(), self._cells.tobytes()
            while made < most and _steps_on(child.pid):
                after = look()
                if after != before:
                    made, before = made + 1, after
            for _ in range(more):
                _steps_on(child.pid)
            return made, _different(image, self._cells.tobytes())
        finally:
            child.kill()


def _different(image: bytes, other: bytes) -> set[int]:
    """The cells that differ between two images of the memory."""
    pairs = zip(memoryview(image).cast("q"), memoryview(other).cast("q"), strict=True)
    return {cell for cell, (one, two) in enumerate(pairs) if one != two}


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
