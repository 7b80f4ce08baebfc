"""Breaking a piece of code off at any instruction: a kill, or an exception as a signal handler raises it."""
from __future__ import annotations

import contextlib
import dis
import enum
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import prefork_lb
from tests.unit.shared.processes import Child

PACKAGE = str(Path(prefork_lb.__file__).parent)
# Where a signal handler can run: in our code, and in the context manager that we enter sections by.
FILES = (PACKAGE, contextlib.__file__)

COMPLETED, BROKEN_OFF = 0, 3


class Break(enum.Enum):
    KILL = "kill"
    RAISE = "raise"


class Raised(BaseException):
    """What the signal handler raises; like SystemExit, nobody catches it."""


def run_until(instruction: int, how: Break, run: Callable[[], object]) -> bool:
    """Run `run` in this process but break it off before its `instruction`th bytecode instruction of our own code.

    Returns whether it came to its end before that.
    """
    executed = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal executed
        if event == "call":
            if not frame.f_code.co_filename.startswith(FILES):
                return None
            frame.f_trace_opcodes = True
        elif event == "opcode":
            executed += 1
            if executed == instruction:
                if how is Break.KILL:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise Raised
        return trace

    before = sys.gettrace()  # what measures coverage
    sys.settrace(trace)
    try:
        run()
    except Raised:
        return False
    finally:
        sys.settrace(before)
    return True


def broken_off(
    instruction: int, how: Break, prepare: Callable[[], Callable[[], object]], afterwards: Callable[[], object] | None = None
) -> bool:
    """A process runs `prepare`, then what that returns until it is broken off at `instruction`, then (if it still lives)
    `afterwards`, and ends. Returns whether it came to its end unbroken."""

    if sys.version_info >= (3, 12):
        pytest.skip("from Python 3.12 on sys.settrace does not report every instruction: the same code is broken off on 3.11")

    def live() -> None:
        run = prepare()
        completed = run_until(instruction, how, run)
        if not completed and afterwards is not None:
            afterwards()
        os._exit(COMPLETED if completed else BROKEN_OFF)

    status = Child(live).wait()
    assert status in (COMPLETED, BROKEN_OFF, -signal.SIGKILL), f"at instruction {instruction}: exit status {status}"
    return status == COMPLETED


def moments(how: Break, prepare: Callable[[], Callable[[], object]], memory: memoryview, every: int = 1) -> list[int]:
    """The instructions before which breaking off leaves something else than one instruction earlier, and the last one.

    - A kill leaves nothing of a process but the shared memory, with the lock in it. So all kills between two stores are one case.
    - What an exception leaves depends on the handlers that are active as well, and on what they find in variables. A case begins
      with a store to the memory and behind one, where other handlers are active, and behind each store and call under a handler.
      Where no handler is active an exception is a kill. Of the cases between two stores to the memory each `every`th is taken.

    A process of its own runs the work, whole. What it finds has to be what the processes find that are broken off: a server that
    was there once leaves other traces than one that never was.
    """
    if sys.version_info >= (3, 12):
        pytest.skip("from Python 3.12 on sys.settrace does not report every instruction: the same code is broken off on 3.11")
    read, write = os.pipe()

    def live() -> None:
        recorder = _Recorder(how, memory, every)
        recorder.record(prepare())
        os.write(write, json.dumps(recorder.found).encode())

    child = Child(live)
    os.close(write)
    with open(read) as pipe:
        found: list[int] = json.load(pipe)
    assert child.wait() == 0
    return found


class _Recorder:
    """Finds the moments of a run in this process."""

    def __init__(self, how: Break, memory: memoryview, every: int) -> None:
        self.found: list[int] = []
        self._how, self._memory, self._every = how, memory, every
        self._executed = self._passed = 0
        self._before = b""
        self._stored = self._may_matter = False  # of the instruction before
        self._active: list[tuple[CodeType, int]] = []
        self._tables: dict[CodeType, list[Any]] = {}
        self._base: FrameType | None = None

    def record(self, run: Callable[[], object]) -> None:
        self._base = sys._getframe()
        sys.settrace(self._trace)
        try:
            run()
        finally:
            sys.settrace(None)
        if self.found[-1] != self._executed:
            self.found.append(self._executed)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(FILES):
                return None
            frame.f_trace_opcodes = True
        elif event == "opcode":
            self._executed += 1
            if self._is_moment(frame):
                self.found.append(self._executed)
        return self._trace

    def _is_moment(self, frame: FrameType) -> bool:
        memory = bytes(self._memory)
        stored, self._before = memory != self._before, memory
        if self._how is Break.KILL:
            return stored
        active = self._handlers(frame)
        is_case = active != self._active or (bool(active) and self._may_matter)
        self._active, behind, self._stored = active, self._stored, stored
        self._may_matter = dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(("STORE", "DELETE", "CALL"))
        if is_case and not (stored or behind):
            self._passed += 1
            return self._passed % self._every == 0
        return stored or behind

    def _handlers(self, frame: FrameType | None) -> list[tuple[CodeType, int]]:
        found = []
        while frame is not None and frame is not self._base:
            code = frame.f_code
            if code not in self._tables:
                self._tables[code] = dis._parse_exception_table(code)  # type: ignore[attr-defined]
            found += [(code, entry.target) for entry in self._tables[code] if entry.start <= frame.f_lasti < entry.end]
            frame = frame.f_back
        return found


def length(prepare: Callable[[], Callable[[], object]]) -> int:
    """How many instructions it has: by halving, since each number costs a process."""
    low, high = 0, 1
    while not broken_off(high, Break.KILL, prepare):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if broken_off(middle, Break.KILL, prepare):
            high = middle
        else:
            low = middle
    return low
