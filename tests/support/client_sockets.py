"""Which worker has which client connections, read from /proc."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_ESTABLISHED = "01"
_READS = 3


def shares(pids: Iterable[int], port: int) -> list[int]:
    """How many established IPv4 connections to the local `port` each of the processes has (proc(5))."""
    # While other connections come and go, a read of the table may miss some of its rows or show them twice.
    open_here = set().union(*(_established(port) for _ in range(_READS)))
    return [len(open_here & _sockets(pid)) for pid in pids]


def _established(port: int) -> set[str]:
    local = f":{port:04X} "  # splitting all rows of a busy machine would take long
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if local in line]
    return {f"socket:[{row[9]}]" for row in rows if row[1].endswith(local[:-1]) and row[3] == _ESTABLISHED}


def _sockets(pid: int) -> set[str]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
