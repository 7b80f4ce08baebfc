"""Body bytes that tell their own offset, so that a lost, doubled or moved piece is seen however large the body is."""
from __future__ import annotations

import random

# Random bytes, repeated: comparing a piece with a slice of them costs next to nothing, a checksum would not.
PERIOD = 1024 * 1024 - 3  # not a multiple of any buffer, so that a skipped buffer shifts the pattern
_TWICE = memoryview(random.Random(20).randbytes(PERIOD) * 2)


def pattern(offset: int, length: int) -> memoryview:
    """The `length` bytes at `offset` of the endless pattern; `length` is at most PERIOD."""
    if length > PERIOD:
        raise ValueError(f"{length} bytes asked for at once, at most {PERIOD} are there")
    start = offset % PERIOD
    return _TWICE[start : start + length]


def fits_pattern(offset: int, piece: bytes | bytearray | memoryview) -> bool:
    """Whether `piece` is what the pattern has at `offset`."""
    view = memoryview(piece)
    for start in range(0, len(view), PERIOD):
        part = view[start : start + PERIOD]
        if part != pattern(offset + start, len(part)):
            return False
    return True
