"""Finds the segments of running instances: by their names in /dev/shm, and through /proc when a name has been removed.

A file in /dev/shm can be removed while the instance runs: by a cleaner, an administrator, or systemd's RemoveIPC at the
logout of the user. Processes that have mapped the memory keep it. A process that starts later finds the memory through
/proc/PID/fd of a process that has it open; the kernel allows this to the same user and to root.
"""
from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from prefork_lb.shared.segment import Segment, SegmentError, map_segment

SHM_VARIABLE = "PREFORK_LB_SHM"
DIRECTORY = Path(os.environ.get(SHM_VARIABLE) or "/dev/shm")
"""Where segments lie. A balancer and its commands must use the same folder. It should be in memory (tmpfs), not on a disk."""
NAME = re.compile(r"prefork-lb-(\d+)-(\d+)-(\d+)")
"""`prefork-lb-<uid>-<pid>-<start>`: the user, and the gunicorn master that made it, by pid and start time."""
_DELETED = " (deleted)"


def find(master: int) -> Segment | None:
    """The segment of this user that the gunicorn master with this pid shares; None if there is none. Raises SegmentError."""
    for segment in segments(os.geteuid()):
        if master in segment.masters():
            return segment
        segment.close()
    return None


def visible_segments() -> Iterator[Segment]:
    """The segments that this process may look at: those of its user; for root, those of all users. Raises SegmentError."""
    return segments(None if os.geteuid() == 0 else os.geteuid())


def segments(uid: int | None) -> Iterator[Segment]:
    """The segments of a user, or of all users when None. Those with a name come first, oldest first. Raises SegmentError."""
    for name in segment_names(uid):
        segment = open_segment(name)
        if segment is not None:
            yield segment
    yield from removed_segments(uid)


def segment_names(uid: int | None = None) -> list[str]:
    """The names in /dev/shm of all segments of a user (of all users when None), oldest first."""
    found = []
    for entry in os.scandir(DIRECTORY) if DIRECTORY.is_dir() else []:
        match = NAME.fullmatch(entry.name)
        if match and (uid is None or int(match[1]) == uid) and _is_owned(entry, int(match[1])):
            found.append((int(match[3]), entry.name))
    return [name for _, name in sorted(found)]


def open_segment(name: str) -> Segment | None:
    """Attach to a segment by name; None if it is gone, half made, or of another version's format. Raises SegmentError."""
    try:
        descriptor = os.open(DIRECTORY / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SegmentError(f"{DIRECTORY / name}: {exc.strerror}; it belongs to another user: use that user, or root") from exc
    return map_segment(descriptor, name)


def open_inherited(descriptor: int, name: str) -> Segment | None:
    """Attach to the segment behind a descriptor that the parent process has passed on. The file needs no name.

    The file is opened again: a lock (flock) on the passed descriptor would also belong to the parent.
    """
    return map_segment(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC), name)


def removed_segments(uid: int | None) -> Iterator[Segment]:
    """The segments of a user (of all users when None) that have no name any more and that a process still has open."""
    seen = set()
    for path, name in _open_without_name(uid):
        with contextlib.suppress(OSError):  # the process has ended or closed the file since the search
            status = os.stat(path)
            match = NAME.fullmatch(name)
            if match is None or status.st_uid != int(match[1]) or (status.st_dev, status.st_ino) in seen:
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # Not before: a process that ends now must not hide the others that have the same memory.
            seen.add((status.st_dev, status.st_ino))
            segment = map_segment(descriptor, name)
            if segment is not None:
                yield segment


def _open_without_name(uid: int | None) -> Iterator[tuple[str, str]]:
    """Paths in /proc of open files that once had a segment's name, and that name."""
    for process in os.scandir("/proc"):
        if not process.name.isdigit():
            continue
        try:
            # /proc lists a process that has given up root's rights under root; only root may read its descriptors.
            if uid is not None and process.stat().st_uid != uid:
                continue
            for entry in os.scandir(f"/proc/{process.name}/fd"):
                link = _target(entry.path)
                folder, _, name = link.removesuffix(_DELETED).rpartition("/")
                if link.endswith(_DELETED) and folder == str(DIRECTORY) and NAME.fullmatch(name):
                    yield entry.path, name
        except OSError:  # the process has ended, or this user may not look at it
            continue


def _target(path: str) -> str:
    """What a descriptor is open on; empty when it has been closed. The other descriptors of its process may still be there."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _is_owned(entry: os.DirEntry[str], uid: int) -> bool:
    # Every user may create files with any name in /dev/shm. A file of another user is not used: its owner could write to it
    # and so change this process's memory.
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == uid
