"""The keepers of an instance, as /proc shows them. See `scaling.keeper`."""
from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prefork_lb.scaling.tree import BEGINS_S, command_line, parent_of
from prefork_lb.shared.identity import start_time

KEEPER = Path(__file__).resolve().with_name("keeper.py")
PYTHON = (sys.executable, "-I", "-S")
"""What runs it."""

_KNOWN_BY = "/".join(KEEPER.parts[-3:])  # another version of the package may lie elsewhere


class Found(NamedTuple):
    """A keeper that /proc shows."""

    pid: int
    started: int  # clock ticks
    pool: str
    n: int
    address: str
    status: int  # its descriptor of the status
    stop_timeout_s: float


def keepers(segment: str) -> Iterator[Found]:
    """The keepers of an instance. A child that a keeper has just forked has its command line, too, until it is the server."""
    found = {each.pid: (each, parent) for each, parent in _with_keepers_command(segment)}
    return (each for each, parent in found.values() if parent not in found)


def _with_keepers_command(segment: str) -> Iterator[tuple[Found, int]]:
    """The processes with a keeper's command line, and their parents."""
    until = time.monotonic() + BEGINS_S  # for all: the controller must not stand still
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):  # it has ended, or is none
                words = command_line(int(entry.name), until)
                if len(words) > len(PYTHON) + 5 and words[3].endswith(_KNOWN_BY) and words[4] == segment:
                    pid, started = int(entry.name), start_time(int(entry.name))
                    if started and _is_own(pid):
                        order = json.loads(words[8])
                        found = Found(pid, started, words[5], int(words[6]), words[7], order["status"], order["stop_timeout"])
                        yield found, parent_of(pid)


def _is_own(pid: int) -> bool:
    """Whether a process is this user's in every respect. Any user can give a process a keeper's command line, also one that
    becomes root by its file's mode; what it said would be taken for a server."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return {int(uid) for uid in line.split()[1:]} == {os.geteuid()}
    return False
