"""Whether a descriptor has something to say, without waiting and without letting the GIL go.

Facts: `select.poll` gives the GIL away for a call that never waits. With dozens of threads, taking it back costs more than all
else about the call, and the check is made for every request.
"""
from __future__ import annotations

import ctypes
import select


class _PollFd(ctypes.Structure):
    """struct pollfd of poll(2)."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


_poll = ctypes.PyDLL(None).poll


class Readable:
    """Asks again and again about one descriptor, which must be open."""

    def __init__(self, descriptor: int, events: int = select.POLLIN) -> None:
        """`events` as for poll(2)."""
        self._entry = _PollFd(descriptor, events, 0)
        self._pointer = ctypes.byref(self._entry)

    def now(self) -> bool:
        """Whether one of the events, an error or a hang-up is there at this moment."""
        return bool(_poll(self._pointer, 1, 0))
