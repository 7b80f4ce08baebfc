"""Memory that the C library holds and that nobody uses."""
from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def give_back() -> None:
    """Give free pages to the kernel, also those between others. A start leaves some: of files that were read, for instance.

    To be called when a process has what it needs, and before a fork: each child would get its copy of a page when it uses it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # musl has none
        trim(0)


def keep(free_bytes: int) -> None:
    """Let the process keep so much free memory, and use it for blocks of up to this size. By default it is 128 KiB: every large
    read would get new pages then, at one page fault each."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_TRIM_THRESHOLD, free_bytes)
        mallopt(_M_MMAP_THRESHOLD, free_bytes)
