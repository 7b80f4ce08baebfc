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


def has_event(descriptor: int, events: int = select.POLLIN) -> bool:
    """Whether one of `events` (poll(2)), an error or a hang-up is there now; `descriptor` must be open."""
    entry = _PollFd(descriptor, events, 0)
    return bool(_poll(ctypes.byref(entry), 1, 0))
