"""Who a process is: its pid alone is not enough, since pids come again."""
from __future__ import annotations

import os


def start_time(pid: int) -> int:
    """The start time of a living process in clock ticks since boot (proc(5), field 22); 0 if there is none.

    A zombie is dead: it holds nothing any more, only its parent has not looked yet.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The command's name stands in brackets and may hold anything, brackets too.
    fields = stat[stat.rindex(b")") + 2:].split()
    if fields[0] in (b"Z", b"X"):
        return 0
    return int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had this pid and start time still runs."""
    # A start time of 0 was noted when the process had ended already.
    return pid > 0 and started > 0 and start_time(pid) == started


def myself() -> tuple[int, int]:
    """This process: pid and start time."""
    pid = os.getpid()
    return pid, start_time(pid)
