"""Which worker has which client connections, read from /proc."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_ESTABLISHED, _LISTENING = "01", "0A"
_READS = 3


def shares(pids: Iterable[int], port: int) -> list[int]:
    """How many established IPv4 connections to the local `port` each of the processes has (proc(5))."""
    states = _states(port)
    established = {socket for socket, state in states if state == _ESTABLISHED}
    return [len(established & _sockets(pid)) for pid in pids]


def connections(pid: int, port: int) -> int:
    """How many connections to the local `port` the process has, also those that its clients have closed. 0 without a process."""
    return len({socket for socket, state in _states(port) if state != _LISTENING} & _sockets(pid))


def _states(port: int) -> set[tuple[str, str]]:
    """The IPv4 sockets with the local `port`, each with its state."""
    # While other connections come and go, a read of the table may miss some of its rows or show them twice.
    return set().union(*(_read(port) for _ in range(_READS)))


def _read(port: int) -> set[tuple[str, str]]:
    local = f":{port:04X} "  # splitting all rows of a busy machine would take long
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if local in line]
    return {(f"socket:[{row[9]}]", row[3]) for row in rows if row[1].endswith(local[:-1])}


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # the process has ended meanwhile
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found
