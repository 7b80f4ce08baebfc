"""What a process has started and what has started it, and what that uses, as /proc shows it."""
from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

from prefork_lb.shared.identity import start_time

_TICKS = os.sysconf("SC_CLK_TCK")
BEGINS_S = 1.0
"""The time in which a program that has just begun has a command line: some microseconds, and as long as it does not get the
processor."""
_YOUNG_S = 10.0  # an older process without a command line never has one
_PAGE = os.sysconf("SC_PAGE_SIZE")


def command_line(pid: int, until: float) -> list[str]:
    """The words of a process' command line; none of a zombie and of a thread of the kernel. Raises OSError when there is none.

    Of a program that has just begun, the parent may go on before the kernel has set the command line up: then this waits for it,
    until this instant of the monotonic clock.
    """
    path = Path(f"/proc/{pid}/cmdline")
    while True:
        words = path.read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
        if words or time.monotonic() >= until or not _may_have_begun(pid):
            return words
        time.sleep(0.0002)


def _may_have_begun(pid: int) -> bool:
    """Whether its program may have begun just now."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:  # a zombie, a thread of the kernel, or another user's
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_time(pid) / _TICKS < _YOUNG_S


def processes_below(pid: int) -> list[int]:
    """The processes that this one has started, and those that they have, and so on."""
    found, left = [], [pid]
    while left:
        for task in _tasks(left.pop()):
            with contextlib.suppress(OSError):
                new = [int(child) for child in Path(task, "children").read_bytes().split()]
                found += new
                left += new
    return found


def parent_of(pid: int) -> int:
    """The parent of a process. Raises OSError when there is no such process."""
    return int(_stat(pid)[1])


def memory_of(processes: Collection[int]) -> int:
    """The bytes of memory of these processes. What they share counts once, where this user may look so closely."""
    return sum(map(_memory, processes))


def cpu_of(processes: Collection[int]) -> float:
    """The seconds of CPU time that these processes have used, with those of their children that have ended."""
    return sum(map(_cpu, processes))


def end_session(leader: int, started: int) -> None:
    """End at once what a process that has ended, or will, has left behind in its session. `started` is its start time."""
    if start_time(leader) not in (0, started):
        return  # a new process has its pid, so nothing of its session was left
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = _stat(int(entry.name))
                if int(fields[3]) == leader and int(fields[19]) >= started:
                    os.kill(int(entry.name), signal.SIGKILL)


def _tasks(pid: int) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _stat(pid: int) -> list[bytes]:
    """The fields of proc(5) from the third on."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return stat[stat.rindex(b")") + 2:].split()


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return 0


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError):
        return sum(map(int, _stat(pid)[11:15])) / _TICKS
    return 0.0
