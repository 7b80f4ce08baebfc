"""The identity of a process: pid and start time. The kernel reuses pids, so a pid alone is not enough."""
from __future__ import annotations

import os


def start_time(pid: int) -> int:
    """The start time of a living process in clock ticks since boot (proc(5), field 22); 0 if no such process lives.

    A zombie counts as dead: it has released everything, and only waits for its parent to read its exit status.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command's name is in brackets and may contain any character, brackets included.
    fields = stat[stat.rindex(b")") + 2:].split()
    if fields[0] in (b"Z", b"X"):
        return 0
    return int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had this pid and start time still runs."""
    # A start time of 0 means that the process had already ended when it was recorded.
    return pid > 0 and started > 0 and start_time(pid) == started


def myself() -> tuple[int, int]:
    """This process: pid and start time."""
    pid = os.getpid()
    return pid, start_time(pid)
