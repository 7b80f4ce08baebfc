"""A mutex between processes that survives its owner's death.

First fact: a worker can be killed at any instruction, also while it holds the lock. `multiprocessing.Lock` is a semaphore and
would stay taken for ever. When the owner of a *robust* pthread mutex dies, the next process that locks it gets the lock and the
result EOWNERDEAD, and must repair what the dead owner left half done (pthread_mutexattr_setrobust(3)). The C library has these
mutexes, so ctypes is all we need.

Second fact: a thread that blocks inside pthread_mutex_lock releases the GIL, gets the mutex, and then holds the mutex while it
waits for the GIL. With 32 threads in two processes, every second claim waited 10 ms for such an owner. So a thread keeps the GIL
while it takes the mutex (`PyDLL` does that): it tries, and while another thread has the mutex, it tries again, first at once and
later after naps. Sections are a few microseconds long, so naps are rare. A process in which only one thread takes the lock does
not have this problem. It waits in the kernel, which wakes it at once.
"""
from __future__ import annotations

import ctypes
import errno
import logging
import os
import sys
import time
from collections.abc import Callable

from prefork_lb.errors import InvariantError, PreforkLBError

MUTEX_BYTES = 64
"""Room for a pthread_mutex_t: 40 bytes on x86-64, 48 on aarch64."""

# The same numbers in glibc and musl.
_PTHREAD_MUTEX_ERRORCHECK = 2
_PTHREAD_PROCESS_SHARED = 1
_PTHREAD_MUTEX_ROBUST = 1

# A try costs 0.3 us and a section some 5 us; a nap is at least 50 us long, the kernel's timer slack.
_SPINS = 20
_NAP_S = 20e-6
_LONGEST_NAP_S = 500e-6
# A wait in the kernel is this long at most. Python runs signal handlers between two instructions, so not during the wait.
_KERNEL_WAIT_S = 0.05

# A section takes microseconds. An owner that has the lock at two looks does not run: it was stopped by a signal or a debugger, or
# the host swaps. A long wait alone says less: when many workers start at once on few cores, each waits for many others.
_STALL_S = 1.0  # until the first look at the owner
_LOOK_S = 1.0  # between two looks
_STOPPED_LOOKS = 2
_TELLS_AGAIN_S = 60.0
# glibc keeps the owner's thread id twice in a robust mutex, as 32-bit integers: in the futex word, under two flags of the kernel
# (futex(2)), and alone at byte 8. Where the two differ, the C library has another layout, and the owner is unknown.
_FUTEX_WORD, _OWNER, _TID_MASK = 0, 8, 0x3FFFFFFF

log = logging.getLogger("prefork_lb")

_EBUSY, _EDEADLK, _EOWNERDEAD = errno.EBUSY, errno.EDEADLK, errno.EOWNERDEAD
_NOT_YET = (errno.EBUSY, errno.ETIMEDOUT)


class _TimeSpec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class LockUnavailable(PreforkLBError):
    """This system has no robust process-shared mutex."""


Stalled = Callable[[int, int], None]
"""Called once a second in a stall, with the pid of the process that holds the lock, and the number of looks in a row at which the
same thread held it. It counts looks, not seconds: a pause of the whole machine is one look, however long it was."""


class RobustLock:
    """A robust mutex in shared memory; not reentrant.

    When the last owner died while it held the lock, `repair` is called with the lock held, before `acquire` returns.
    """

    def __init__(self, buffer: memoryview, offset: int, repair: Callable[[], None], one_thread: bool = False,
                 stalled: Stalled | None = None) -> None:
        """Use the mutex at `offset` of `buffer`; `initialise` must have been called on it once.

        `one_thread`: only one thread of this process takes it. `stalled` is called by a thread that waits too long.
        """
        self._library = _library()
        self._keep = (ctypes.c_char * MUTEX_BYTES).from_buffer(buffer, offset)
        self._mutex = ctypes.c_void_p(ctypes.addressof(self._keep))
        self._repair = repair
        self._one_thread = one_thread
        self._stalled = stalled
        self._tells_at = 0.0
        self._trylock: Callable[[ctypes.c_void_p], int] = self._library.pthread_mutex_trylock
        self._unlock: Callable[[ctypes.c_void_p], int] = self._library.pthread_mutex_unlock

    def acquire(self) -> None:
        """Take the lock; waits as long as a living owner holds it. Raises InvariantError if the mutex is unusable."""
        result = self._trylock(self._mutex)
        if result:
            self._wait(result)

    def release(self) -> None:
        """Give the lock back. The caller's thread must hold it."""
        result = self._unlock(self._mutex)
        if result:
            raise InvariantError(f"pthread_mutex_unlock: {os.strerror(result)}")

    def _wait(self, result: int) -> None:
        tries, began = 0, time.monotonic()
        look_at, owner, looks = began + _STALL_S, 0, 0
        while result in _NOT_YET:
            tries += 1
            if tries > _SPINS and (now := time.monotonic()) >= look_at:
                look_at = now + _LOOK_S
                before, owner = owner, self._owner()
                looks = looks + 1 if owner == before else 1
                self._look_at_stall(owner, looks, now, began)
            if tries > _SPINS and self._one_thread:
                result = self._wait_in_kernel()
                continue
            if tries > _SPINS:
                # The owner may be a thread of this process that waits for the GIL: a nap releases the GIL.
                time.sleep(min(_NAP_S * (tries - _SPINS), _LONGEST_NAP_S))
            result = self._trylock(self._mutex)
        if result:
            self.recover(result)

    def _owner(self) -> int:
        """The id of the thread that holds the lock; 0 when it is unknown."""
        word, owner = (ctypes.c_int32.from_buffer(self._keep, byte).value for byte in (_FUTEX_WORD, _OWNER))
        return owner if word & _TID_MASK == owner else 0

    def _look_at_stall(self, owner: int, looks: int, now: float, began: float) -> None:
        pid, state = _process_of(owner) if owner else (0, "")
        if looks >= _STOPPED_LOOKS and now >= self._tells_at:
            self._tells_at = now + _TELLS_AGAIN_S
            log.error("requests of this worker have waited %.0f s for the ledger's lock, which %s holds. Let that process go on "
                      "(kill -CONT) or end it (kill -KILL): the lock goes on to the next process", now - began,
                      f"the process {pid} ({state})" if pid else "a process that cannot be told")
        if pid and self._stalled is not None:
            self._stalled(pid, looks)

    def _wait_in_kernel(self) -> int:
        until = time.time() + _KERNEL_WAIT_S  # pthread_mutex_timedlock(3) goes by CLOCK_REALTIME
        return int(self._library.pthread_mutex_timedlock(self._mutex, ctypes.byref(_TimeSpec(int(until), int(until % 1 * 1e9)))))

    def recover(self, result: int) -> None:
        """Repair the data after an attempt to lock that gave `result`. The lock is held afterwards.

        Raises InvariantError if the mutex is unusable.
        """
        # EOWNERDEAD: the last owner died while it held the lock. EDEADLK: this thread holds the lock already, because an
        # exception from a signal handler (gunicorn's SIGQUIT and SIGABRT raise SystemExit) left the section before its
        # `finally`. In both cases this thread holds the lock and repairs the data.
        if result not in (_EOWNERDEAD, _EDEADLK):
            raise InvariantError(f"pthread_mutex_lock: {os.strerror(result)}")
        self._repair()
        # For EDEADLK too: the interrupted section may have been the repair after a death. A mutex that is unlocked before it
        # was declared consistent can never be locked again (ENOTRECOVERABLE). On a consistent mutex the call does nothing.
        self._library.pthread_mutex_consistent(self._mutex)

    def close(self) -> None:
        """Release the buffer, so that it can be unmapped. The lock does not change for other processes.

        `acquire` and `release` raise InvariantError from here on.
        """
        self._trylock = self._unlock = _closed
        self._mutex = ctypes.c_void_p()
        del self._keep


def _process_of(thread: int) -> tuple[int, str]:
    """Pid and state, as "T (stopped)", of the process with this thread; 0 and "" when they are unknown."""
    try:
        with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        return int(fields["Tgid"]), fields["State"]
    except (OSError, KeyError):
        return 0, ""


def _closed(mutex: ctypes.c_void_p) -> int:
    raise InvariantError("the lock was closed: this process has left the shared memory")


def initialise(buffer: memoryview, offset: int) -> None:
    """Make a new robust, process-shared mutex at `offset`. Raises LockUnavailable where the system has none."""
    library = _library()
    attributes = ctypes.create_string_buffer(64)
    mutex = (ctypes.c_char * MUTEX_BYTES).from_buffer(buffer, offset)
    for call, *arguments in (
        (library.pthread_mutexattr_init, attributes),
        (library.pthread_mutexattr_setpshared, attributes, _PTHREAD_PROCESS_SHARED),
        (library.pthread_mutexattr_setrobust, attributes, _PTHREAD_MUTEX_ROBUST),
        (library.pthread_mutexattr_settype, attributes, _PTHREAD_MUTEX_ERRORCHECK),
        (library.pthread_mutex_init, mutex, attributes),
    ):
        result = call(*arguments)
        if result:
            raise LockUnavailable(f"{call.__name__}: {os.strerror(result)}")


_loaded: ctypes.PyDLL | None = None


def _library() -> ctypes.PyDLL:
    global _loaded
    if _loaded is None:
        library = ctypes.PyDLL(None)
        if not hasattr(library, "pthread_mutexattr_setrobust"):
            raise LockUnavailable(
                f"this system ({sys.platform}) has no robust mutexes (pthread_mutexattr_setrobust), which prefork_lb needs "
                "to share its load counts between workers safely; run it on Linux"
            )
        _loaded = library
    return _loaded
