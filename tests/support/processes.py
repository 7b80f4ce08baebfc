"""Facts about running processes, read from /proc and from an instance's shared memory."""
from __future__ import annotations

import contextlib
import functools
import mmap
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from prefork_lb.shared.finding import DIRECTORY, open_segment
from prefork_lb.shared.lock import MUTEX_BYTES, RobustLock, initialise

# What the kernel asks of the word of a robust mutex: the owner's thread id, and two flags above it (linux/futex.h).
FUTEX_TID_MASK = 0x3FFFFFFF
WORD_BYTES = 4

_mapped_segment = re.compile(re.escape(f"{DIRECTORY}/") + r"(prefork-lb-\d+-\d+-\d+)$", re.MULTILINE)


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def children(pid: int) -> list[int]:
    """The process's children, oldest first; none when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def parent(pid: int) -> int:
    """The pid of the process's parent; 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat[stat.rindex(")") + 2 :].split()[1])


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def with_words(words: str) -> list[int]:
    """The processes that have these words in their command lines."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sorted(pid for pid in pids if words in " ".join(command_line(pid)))


def catches(pid: int, signal_number: int) -> bool:
    """Whether the process has a handler for the signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = re.search(r"^SigCgt:\s+([0-9a-f]+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal_number - 1) & 1)


def threads(pid: int) -> list[int]:
    """The ids of the process's threads; none when it is gone."""
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_stopped(pid: int) -> bool:
    """Whether every thread of the process stands still after SIGSTOP: kill(2) returns before they do."""
    return is_running(pid) and all(state(pid, thread) in "TZX" for thread in threads(pid))


def state(pid: int, thread: int) -> str:
    """The thread's state as proc(5) names it; X when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat[stat.rindex(")") + 2]


def doing(pid: int) -> str:
    """What each thread of the process is at, for the message of a test that failed: its state and what it waits for."""
    told = []
    for thread in threads(pid):
        try:
            told.append(f"{thread}: {state(pid, thread)} in {Path(f'/proc/{pid}/task/{thread}/wchan').read_text()}, system call "
                        + Path(f"/proc/{pid}/task/{thread}/syscall").read_text().strip())
        except OSError as exc:
            told.append(f"{thread}: {exc}")
    return "; ".join(told)


def waited_for_cpu(pid: int) -> float:
    """Seconds that the process was ready to run and the machine had no CPU for it, which is other processes' doing."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError):  # a kernel without it
        return 0.0


def threads_waited_for_cpu(pid: int) -> float:
    """The same, added up over the threads that the process has now."""
    return sum(waited for _, waited in _times_of_threads(pid))


def threads_busy(pid: int) -> float:
    """Seconds that the threads, which the process has now, ran or were ready to run."""
    return sum(ran + waited for ran, waited in _times_of_threads(pid))


def _times_of_threads(pid: int) -> Iterator[tuple[float, float]]:
    """Seconds that each thread ran, and was ready to run (sched-stats in the kernel's documentation)."""
    for thread in threads(pid):
        try:
            ran, waited, _ = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        yield int(ran) / 1e9, int(waited) / 1e9


def holds_a_ledger(pid: int) -> bool:
    """Whether a thread of the process is inside the lock of an instance; certain only while the process is stopped.

    The owner is read from the mutex. Trying to take it would be in the workers' way, would not tell whose it is, and would
    oblige the test to repair the memory when the last owner has died.
    """
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    own = threads(pid)
    return any(_owner(name) in own for name in set(_mapped_segment.findall(maps)))


def _owner(name: str) -> int:
    """The id of the thread that holds the lock of this segment; 0 for none."""
    segment = open_segment(name)
    if segment is None:
        return 0
    try:
        start = segment.layout.lock_byte + _owner_word() * WORD_BYTES
        return int.from_bytes(segment.text[start : start + WORD_BYTES], sys.byteorder) & FUTEX_TID_MASK
    finally:
        segment.close()


@functools.cache
def _owner_word() -> int:
    """The word of this C library's mutex that the owner's thread id is in: the first that has ours while we hold one."""
    with mmap.mmap(-1, MUTEX_BYTES) as memory, memoryview(memory) as view:
        initialise(view, 0)
        lock = RobustLock(view, 0, repair=lambda: None)
        lock.acquire()
        with view.cast("I") as words:
            found = words.tolist().index(threading.get_native_id())
        lock.release()
        lock.close()
        return found


def private_bytes(pid: int) -> int:
    """The process's private memory (clean, dirty, swapped) in bytes: what it alone costs, shared libraries left out."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pieces = re.findall(r"^(?:Private_Clean|Private_Dirty|SwapPss):\s+(\d+) kB", rollup, re.MULTILINE)
    return 1024 * sum(map(int, pieces))


def open_files(pid: int) -> list[str]:
    """What the process's file descriptors are open on; none when it is gone."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(os.readlink(entry))
    return found


def last_beat(pid: int) -> int:
    """When a gunicorn worker gave its last sign of life, by the file that it touches for its master."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if "/wgunicorn-" in os.readlink(entry):
                return entry.stat().st_mtime_ns
    raise AssertionError(f"{pid} has no such file")


def descriptors(pid: int) -> int:
    """How many file descriptors the process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
