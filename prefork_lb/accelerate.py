"""The compiled module, where there is one. Everything works without it, a request costs some microseconds more."""
from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Protocol

PURE = "PREFORK_LB_PURE"
"""The environment variable that, set to anything, keeps the compiled module out."""


class NativeClaims(Protocol):
    """A worker's row of the ledger."""

    def release(self, slot: int, failed: bool) -> bool:
        """Take one claim back; False, with nothing done, when the lock was not to be had at once or there is no claim."""


class FastClaims(Protocol):
    """Claims on the servers of one pool."""

    def claim(self) -> int:
        """Pick a server and count the claim: its index. -1, with nothing done, when that is for the Python to do."""


class Native(Protocol):
    """The compiled module, `native.c`."""

    def Claims(self, memory: memoryview, lock_byte: int, totals: memoryview, claims: memoryview,
               requests: memoryview, failures: memoryview, penalties: memoryview,
               recover: Callable[[int], None]) -> NativeClaims: ...

    def LeastConnections(self, claims: NativeClaims, servers: Sequence[tuple[int, int, int]], pool: memoryview,
                         last: memoryview, finish: memoryview) -> FastClaims: ...


def native() -> Native | None:
    """The compiled module; None where it was not built, or is not wanted."""
    if os.environ.get(PURE):
        return None
    try:
        module: Native = importlib.import_module("prefork_lb.native")
    except ImportError:
        return None
    return module
