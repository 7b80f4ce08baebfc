"""The named shared memory of an instance: made by whoever comes first, found by the others, cleared away when stale.

An instance is a gunicorn master with its workers. Its segment is called `prefork-lb-<uid>-<pid>-<start>` after the master
that made it, so that two instances never meet, a new one never takes the numbers of a dead one, and tools find it in
/dev/shm. After an upgrade by USR2 the new master's workers use the old one's segment, since both balance at once: its
header lists the masters. All of it happens under a file lock, which the kernel gives back when its holder dies.
"""
from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from prefork_lb.errors import PreforkLBError
from prefork_lb.shared import layout as at
from prefork_lb.shared.identity import is_alive, start_time
from prefork_lb.shared.layout import Layout
from prefork_lb.shared.lock import initialise

SHM_VARIABLE = "PREFORK_LB_SHM"
DIRECTORY = Path("/dev/shm")
"""Where segments lie. A balancer and its commands must have the same; it should be a file system without a disk."""
CONFIGURATION, CONFIGURATION_IN_WORK = ".configuration", ".configuration-new"
_NAME = re.compile(r"prefork-lb-(\d+)-(\d+)-(\d+)")


class SegmentError(PreforkLBError):
    """The shared memory cannot be had: what was tried, why it failed, and the way out."""


class _Memory(shared_memory.SharedMemory):
    """Stays mapped until `close` or the process' end, and says nothing then."""

    def __del__(self) -> None:
        # The inherited one closes, and prints a BufferError when views of the memory are still alive, as at exit.
        pass


class Segment:
    """An attached segment. `cells` is its memory as signed 64-bit integers, `text` the same as bytes."""

    def __init__(self, memory: shared_memory.SharedMemory, layout: Layout) -> None:
        self.name = memory.name
        self.layout = layout
        self._memory = memory
        self.text: memoryview = _buffer(memory)[:layout.size]
        self.cells: memoryview = self.text.cast("q")

    def close(self) -> None:
        """Detach. Every view handed out must have been released before."""
        self.cells.release()
        self.text.release()
        self._memory.close()

    def masters(self) -> list[int]:
        """The pids of this instance's living gunicorn masters, oldest first."""
        cells = self.cells
        pairs = [(cells[i + 1], cells[i]) for i in range(at.H_MASTERS, at.H_MASTERS + 2 * at.MASTERS, 2)]
        return [pid for start, pid in sorted(pairs) if is_alive(pid, start)]


def attach_or_create(master: int, rows: int, servers: int, predecessor: int = 0) -> Segment:
    """The segment of the instance whose gunicorn master has the pid `master`.

    It is made if it does not exist, with room for `rows` worker processes and `servers` servers. `predecessor` is the pid
    of the master that is being replaced (gunicorn's USR2), 0 if there is none. Segments of this user whose masters are all
    dead are removed. Raises SegmentError.
    """
    uid = os.geteuid()
    if not start_time(master):
        # A segment made now would belong to nobody who could ever be seen to end.
        raise SegmentError(f"gunicorn's master (pid {master}) has ended; its workers end, too")
    with _file_lock(uid):
        chosen: Segment | None = None
        for name in segment_names(uid):
            segment = open_segment(name)
            masters = segment.masters() if segment else []
            if not masters:
                if segment is not None or not _is_of_another_version(name):
                    _unlink(name)
            elif segment is not None and chosen is None and (master in masters or predecessor in masters):
                if master not in masters:
                    _add_master(segment, master)
                chosen = segment
                continue
            if segment is not None:
                segment.close()
        return chosen or _create(uid, master, Layout(rows, servers, servers))  # a pool has one server at least


def find(master: int) -> Segment | None:
    """The segment of this user that the gunicorn master with this pid shares; None if there is none. Raises SegmentError."""
    for name in segment_names(os.geteuid()):
        segment = open_segment(name)
        if segment is not None:
            if master in segment.masters():
                return segment
            segment.close()
    return None


def remove(master: int) -> None:
    """Remove the segment of the instance whose only living gunicorn master is `master`; workers that still run keep theirs."""
    for name in segment_names():
        try:
            segment = open_segment(name)
        except SegmentError:  # another user's, so not this master's
            continue
        if segment is not None:
            if segment.masters() == [master]:
                _unlink(name)
            segment.close()


def open_segment(name: str) -> Segment | None:
    """Attach to a segment by name; None if it is gone, half made, or of another version's format."""
    try:
        with _untracked():
            memory = _Memory(name)
    except (FileNotFoundError, ValueError):  # ValueError: of size zero, its maker died right after creating it
        return None
    except PermissionError as exc:
        raise SegmentError(f"{DIRECTORY / name}: {exc.strerror}; it belongs to another user: use that user, or root") from exc
    if memory.size >= at.HEADER_CELLS * at.CELL:
        with _buffer(memory)[:at.HEADER_CELLS * at.CELL] as text, text.cast("q") as head:
            good = head[at.H_MAGIC] == at.MAGIC and head[at.H_VERSION] == at.VERSION
            layout = Layout(head[at.H_ROWS], head[at.H_SERVERS], head[at.H_POOLS])
        if good and memory.size >= layout.size:
            return Segment(memory, layout)
    memory.close()
    return None


def segment_names(uid: int | None = None) -> list[str]:
    """The names of all segments of a user (of all users when None), oldest first."""
    found = []
    for entry in os.scandir(DIRECTORY) if DIRECTORY.is_dir() else []:
        match = _NAME.fullmatch(entry.name)
        if match and (uid is None or int(match[1]) == uid) and _is_owned(entry, int(match[1])):
            found.append((int(match[3]), entry.name))
    return [name for _, name in sorted(found)]


def _is_owned(entry: os.DirEntry[str], uid: int) -> bool:
    # Anybody may lay a file of any name there, and memory that a stranger can write to is a way into this process.
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == uid


def _is_of_another_version(name: str) -> bool:
    """Whether a segment has another version's format and the master that made it lives: the running instance needs it."""
    match = _NAME.fullmatch(name)
    if match is None or not is_alive(int(match[2]), int(match[3])):
        return False
    with contextlib.suppress(FileNotFoundError), open(DIRECTORY / name, "rb") as file:
        head = array.array("q", file.read(2 * at.CELL))
        return len(head) == 2 and head[at.H_MAGIC] == at.MAGIC and head[at.H_VERSION] != at.VERSION
    return False


def _create(uid: int, master: int, layout: Layout) -> Segment:
    name = f"prefork-lb-{uid}-{master}-{start_time(master)}"
    try:
        with _untracked():
            memory = _Memory(name, create=True, size=layout.size)
    except OSError as exc:
        raise SegmentError(f"{DIRECTORY / name}: cannot be created: {exc.strerror}; "
                           f"prefork_lb needs shared memory at {DIRECTORY}") from exc
    try:
        # Room is claimed now: a full /dev/shm would otherwise show itself as SIGBUS in the middle of a request.
        with open(DIRECTORY / name, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, layout.size)
    except OSError as exc:
        memory.close()
        _unlink(name)
        raise SegmentError(f"{DIRECTORY}: no room for {layout.size} bytes: {exc.strerror}; "
                           "enlarge it (mount -o remount,size=...) or remove what fills it") from exc
    segment = Segment(memory, layout)
    cells = segment.cells
    cells[at.H_ROWS], cells[at.H_SERVERS], cells[at.H_POOLS] = layout.rows, layout.servers, layout.pools
    cells[at.H_GENERATION] = 1
    cells[at.H_CREATED] = int(time.time())
    initialise(segment.text, layout.lock_byte)
    _add_master(segment, master)
    cells[at.H_VERSION] = at.VERSION
    cells[at.H_MAGIC] = at.MAGIC
    return segment


def _buffer(memory: shared_memory.SharedMemory) -> memoryview:
    assert memory.buf is not None  # it is only after close
    return memory.buf


def _add_master(segment: Segment, master: int) -> None:
    cells = segment.cells
    for i in range(at.H_MASTERS, at.H_MASTERS + 2 * at.MASTERS, 2):
        if not is_alive(cells[i], cells[i + 1]):
            cells[i + 1] = start_time(master)
            cells[i] = master
            return
    raise SegmentError(f"{segment.name}: {at.MASTERS} gunicorn masters share it already; stop one of them")


def companion(name: str, suffix: str) -> Path:
    """A file beside the segment of this name, which goes when the segment goes."""
    return DIRECTORY / f"{name}{suffix}"


def exists(name: str) -> bool:
    """Whether the segment has not been removed."""
    return (DIRECTORY / name).exists()


def _unlink(name: str) -> None:
    # Not through SharedMemory: it would have to attach first. Whoever still has it mapped keeps it until it ends.
    for path in (DIRECTORY / name, *(companion(name, suffix) for suffix in (CONFIGURATION, CONFIGURATION_IN_WORK))):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def _file_lock(uid: int) -> Iterator[None]:
    path = DIRECTORY / f"prefork-lb-{uid}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise SegmentError(f"{path}: {exc.strerror}; prefork_lb needs to write to {DIRECTORY}") from exc
    try:
        if os.fstat(descriptor).st_uid != uid:
            raise SegmentError(f"{path}: belongs to another user (uid {os.fstat(descriptor).st_uid}); remove it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _NoTracker:
    """Stands in for `multiprocessing.resource_tracker` while a segment is attached."""

    @staticmethod
    def register(name: str, kind: str) -> None:
        """Nothing: see `_untracked`."""

    unregister = register


_patching = threading.Lock()


@contextlib.contextmanager
def _untracked() -> Iterator[None]:
    """Keep Python's resource tracker off: it would start a process for each worker, and remove the segment under the
    others when the first worker ends (CPython issue 82300; 3.13 has `track=False`, 3.11 and 3.12 have nothing)."""
    module: Any = shared_memory
    with _patching:
        tracker = module.resource_tracker
        module.resource_tracker = _NoTracker
        try:
            yield
        finally:
            module.resource_tracker = tracker
