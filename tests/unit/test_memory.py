"""Free memory between blocks in use goes back to the kernel."""
from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from prefork_lb import memory

_BLOCK_BYTES = 64 * 1024  # below the size from which the C library takes each block from the kernel by itself
_BLOCKS = 400


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_free_pages_below_a_block_in_use_are_given_back() -> None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("this C library has no malloc_trim")
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(_BLOCK_BYTES) for _ in range(_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, _BLOCK_BYTES)
    *below, last = blocks
    for block in below:
        library.free(block)
    before = resident_bytes()
    memory.give_back()
    library.free(last)
    assert before - resident_bytes() > _BLOCK_BYTES * _BLOCKS // 2
