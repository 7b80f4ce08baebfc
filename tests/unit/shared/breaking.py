"""Breaking a piece of code off at any instruction: a kill, or an exception as a signal handler raises it."""
from __future__ import annotations

import contextlib
import enum
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
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
