"""Makes the segment of an instance, or finds the existing one; removes segments whose instances have ended.

An instance is a gunicorn master with its workers. Its segment is called `prefork-lb-<uid>-<pid>-<start>`, after the master
that made it. So two instances never share a segment, a new instance never takes over the counts of a dead one, and tools find
the segment in /dev/shm. After an upgrade by USR2 two masters balance at once: the new master's workers use the segment of the
old one, and its header lists both masters. A file lock covers these steps; the kernel releases it when its holder dies.
"""
from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY, NAME, open_segment, removed_segments, segment_names
from prefork_lb.shared.identity import is_alive, myself, start_time
from prefork_lb.shared.lock import initialise
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment, SegmentError, living_masters, read_header

# Formats up to version 4 kept the configuration in these files beside the segment.
_COMPANIONS_OF_BEFORE = (".configuration", ".configuration-new")
# A master that ends waits this long for the file lock. The lock's holder may be stopped, and the master must still end.
_PATIENCE_S = 2.0
_LOCK_LOOK_S = 0.02

log = logging.getLogger("prefork_lb")


def attach_or_create(master: int, room: Layout, predecessor: int = 0) -> Segment:
    """The segment of the instance whose gunicorn master has the pid `master`. It is made with `room` if it does not exist.

    `predecessor` is the pid of the master that is being replaced (gunicorn's USR2), 0 if there is none. Segments of this user
    whose masters are all dead are removed. Raises SegmentError.
    """
    uid = os.geteuid()
    if not start_time(master):
        # With a start time of 0, the end of this master could never be noticed, and its segment would never be removed.
        raise SegmentError(f"gunicorn's master (pid {master}) has ended; its workers end, too")
    wanted = {master, predecessor}
    with _file_lock(uid):
        found = _sweep_names(uid, wanted) or _chosen(removed_segments(uid), wanted)
        if found is None:
            return _create(uid, master, room)
        if master not in found.masters():
            _add_master(found, master)
        return found


def remove_segment(master: int) -> Segment | None:
    """Remove the segment of the instance whose only living gunicorn master is `master`; None: there is none.

    Processes that still run keep the memory that they have mapped, and so does the caller, who gets the segment.
    """
    for name in segment_names():
        try:
            segment = open_segment(name)
        except SegmentError:  # another user's, so not this master's
            continue
        if segment is not None:
            if segment.masters() == [master] and _remove(segment, master):
                return segment
            segment.close()
    return None


def _remove(segment: Segment, master: int) -> bool:
    """Whether it is removed."""
    try:
        with _file_lock(_uid_of(segment.name), _PATIENCE_S):
            if segment.masters() != [master]:  # looked at again: the first worker of an upgrade may have joined
                return False
            _end(segment)
            _unlink(segment.name)
            return True
    except SegmentError as exc:
        log.warning("%s is left to the next start to remove: %s", segment.name, exc)
        return False


def _sweep_names(uid: int, wanted: set[int]) -> Segment | None:
    """The segment in /dev/shm that one of these masters shares; None if there is none. Removes stale segments."""
    chosen: Segment | None = None
    for name in segment_names(uid):
        segment = open_segment(name)
        masters = segment.masters() if segment is not None else []
        if segment is None:
            if not _serves_another_version(name):
                _unlink(name)
        elif chosen is None and wanted.intersection(masters):
            chosen = segment
        else:
            if not masters:
                _unlink(name)
            segment.close()
    return chosen


def _chosen(segments: Iterator[Segment], wanted: set[int]) -> Segment | None:
    for segment in segments:
        if wanted.intersection(segment.masters()):
            return segment
        segment.close()
    return None


def _serves_another_version(name: str) -> bool:
    """Whether a segment has another version's format and is in use: a master that made or shares it lives."""
    match = NAME.fullmatch(name)
    header = _other_versions_header(name)
    return match is not None and header is not None and (
        is_alive(int(match[2]), int(match[3])) or bool(living_masters(header)))


def _other_versions_header(name: str) -> memoryview | None:
    """The header of a segment in another version's format; None if it has this version's, or is half made or gone."""
    try:
        descriptor = os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        header = read_header(descriptor)
    finally:
        os.close(descriptor)
    return header if header is not None and header[at.H_MAGIC] == at.MAGIC and header[at.H_VERSION] != at.VERSION else None


def _is_of_another_version(uid: int, master: int) -> bool:
    """Whether this master's instance has a segment in another version's format."""
    headers = map(_other_versions_header, segment_names(uid))
    return any(master in living_masters(header) for header in headers if header is not None)


def _create(uid: int, master: int, layout: Layout) -> Segment:
    name = f"prefork-lb-{uid}-{master}-{start_time(master)}"
    if _is_of_another_version(uid, master):
        log.error("the running instance has its shared memory in the format of another version of prefork_lb: the package was "
                  "replaced, and gunicorn reloaded. The new workers make a segment of their own, and count nothing of what the "
                  "old ones have in flight. Restart gunicorn, or upgrade it by SIGUSR2, so that all is of one version again")
        name = "prefork-lb-{}-{}-{}".format(uid, *myself())  # the name by the master may be taken
    try:
        descriptor = os.open(DIRECTORY / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise SegmentError(f"{DIRECTORY / name}: cannot be created: {exc.strerror}; "
                           f"prefork_lb needs shared memory at {DIRECTORY}") from exc
    try:
        # All memory is allocated now: otherwise a full /dev/shm would kill a worker by SIGBUS in the middle of a request.
        os.posix_fallocate(descriptor, 0, layout.size)
    except OSError as exc:
        os.close(descriptor)
        _unlink(name)
        raise SegmentError(f"{DIRECTORY}: no room for {layout.size} bytes: {exc.strerror}; "
                           "enlarge it (mount -o remount,size=...) or remove what fills it") from exc
    segment = Segment(descriptor, name, layout)
    cells = segment.cells
    cells[at.H_ROWS], cells[at.H_SERVERS], cells[at.H_POOLS] = layout.rows, layout.servers, layout.pools
    cells[at.H_CONFIGURATION_BYTES] = layout.configuration_bytes
    cells[at.H_OWN_LINES], cells[at.H_SESSIONS] = layout.own_lines, layout.sessions
    cells[at.H_ANSWER_TIMES], cells[at.H_STATISTICS] = layout.answer_times, layout.statistics
    cells[at.H_RATES], cells[at.H_KEYS], cells[at.H_FILTERS] = layout.rates, layout.keys, layout.filters
    cells[at.H_RATE_USES] = layout.rate_uses
    cells[at.H_GENERATION] = 1
    cells[at.H_CREATED] = int(time.time())
    segment.text[layout.secret_byte:layout.secret_byte + at.SECRET_BYTES] = os.urandom(at.SECRET_BYTES)
    initialise(segment.text, layout.lock_byte)
    _add_master(segment, master)
    cells[at.H_VERSION] = at.VERSION
    cells[at.H_MAGIC] = at.MAGIC
    return segment


def _add_master(segment: Segment, master: int) -> None:
    cells = segment.cells
    for i in range(at.H_MASTERS, at.H_MASTERS + 2 * at.MASTERS, 2):
        if not is_alive(cells[i], cells[i + 1]):
            cells[i + 1] = start_time(master)
            cells[i] = master
            return
    raise SegmentError(f"{segment.name}: {at.MASTERS} gunicorn masters share it already; stop one of them")


def _end(segment: Segment) -> None:
    """Note that the instance has ended, so that a process that still has the memory open does not log the removal."""
    # Without masters, no process finds this memory through /proc any more.
    segment.cells[at.H_REMOVED] = 1
    for i in range(at.H_MASTERS, at.H_MASTERS + 2 * at.MASTERS, 2):
        segment.cells[i] = 0


def _uid_of(name: str) -> int:
    match = NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def _unlink(name: str) -> None:
    # Processes that have mapped the segment keep the memory until they end.
    for path in (DIRECTORY / name, *(DIRECTORY / f"{name}{suffix}" for suffix in _COMPANIONS_OF_BEFORE)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def _file_lock(uid: int, patience_s: float = math.inf) -> Iterator[None]:
    """Hold the lock for the segments of a user. Raises SegmentError if it cannot be had, or not in `patience_s`."""
    path = DIRECTORY / f"prefork-lb-{uid}.lock"
    descriptor = _open_lock(path, uid)
    try:
        _lock(path, descriptor, patience_s)
        while not _is_file(path, descriptor):  # the file was removed during the wait: others lock a new one
            os.close(descriptor)
            descriptor = _open_lock(path, uid)
            _lock(path, descriptor, patience_s)
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int, patience_s: float) -> None:
    if patience_s == math.inf:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise SegmentError(f"{path}: another process has held this lock for {patience_s:g} s") from None
        time.sleep(_LOCK_LOOK_S)


def _open_lock(path: Path, uid: int) -> int:
    # Root, at the end of its master, only opens the file of the workers' user: if it made one, they could not use it. And the
    # kernel refuses O_CREAT on another user's file in such a folder (fs.protected_regular).
    create = os.O_CREAT if uid == os.geteuid() else 0
    try:
        descriptor = os.open(path, os.O_RDWR | create | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise SegmentError(f"{path}: {exc.strerror}; prefork_lb needs to write to {DIRECTORY}") from exc
    owner = os.fstat(descriptor).st_uid
    if owner != uid:
        os.close(descriptor)
        raise SegmentError(f"{path}: belongs to another user (uid {owner}); remove it")
    return descriptor


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
