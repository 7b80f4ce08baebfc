"""The lock of a state file: a flock on a file beside it. The controller that writes the state file holds it while it lives.

The kernel releases the lock when its holder dies. The lock file is never removed: if it were, two processes could each lock a
different file of the same name.
"""
from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec


class Holder(msgspec.Struct, frozen=True):
    """The instance that writes a state file."""

    controller: int  # pid
    master: int  # pid; 0: it has not said yet
    configuration: str  # path of its file


def take(path: Path, mine: Holder) -> int:
    """Take the lock of the state file `path`, and return the descriptor that holds it. Other processes read `mine` in the file.

    Raises BlockingIOError when another process holds the lock, OSError when the lock file cannot be used.
    """
    descriptor = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(mine) + b"\n", 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def holder(path: Path) -> Holder | None:
    """The instance that holds the lock of the state file `path`; None: the lock is free, or this user may not read the file."""
    try:
        descriptor = os.open(_lock_path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(os.pread(descriptor, 8192, 0), type=Holder)
        return Holder(0, 0, "")
    finally:
        os.close(descriptor)


def describe(found: Holder | None) -> str:
    """Names the instance that writes the file, for a message."""
    if found is None or not found.master:
        return "another instance writes it"
    return (f"the instance of gunicorn master {found.master} ({found.configuration}) writes it, "
            f"by its controller {found.controller}")


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
