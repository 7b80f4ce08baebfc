"""Checks whether a descriptor is readable, without waiting and without releasing the GIL.

Facts: `select.poll` releases the GIL even for a call that does not wait. With dozens of threads, getting the GIL back costs more
than the rest of the call, and this check is made for every request.
"""
from __future__ import annotations

import ctypes
import select


class _PollFd(ctypes.Structure):
    """struct pollfd of poll(2)."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


_poll = ctypes.PyDLL(None).poll


class Readable:
    """Checks one descriptor, as often as asked. It must be open."""

    def __init__(self, descriptor: int, events: int = select.POLLIN) -> None:
        """`events` as for poll(2)."""
        self._entry = _PollFd(descriptor, events, 0)
        self._pointer = ctypes.byref(self._entry)

    def now(self) -> bool:
        """Whether one of the events, an error or a hang-up is there at this moment."""
        return bool(_poll(self._pointer, 1, 0))
