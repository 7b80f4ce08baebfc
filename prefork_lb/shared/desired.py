"""The configuration in force, laid into the segment by the newest workers, for the controller and for later workers.

They read this and not the file: a worker has checked it, and a file that went bad meanwhile does not matter.

It is compressed, and there are two buffers. A writer, under the lock, fills the one that does not count, then says in one
store that it counts now: its length, its number, its checksum. So a writer that is killed leaves the configuration of
before, and a reader without the lock sees by the checksum when two writers have overtaken it.
"""
from __future__ import annotations

import zlib

from prefork_lb.shared import layout as at
from prefork_lb.shared.layout import Layout
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment, SegmentError

_READS = 100


def pack(data: bytes) -> bytes:
    """The form that a configuration has in the segment: what `publish` needs room for."""
    return zlib.compress(data)


def check_room(layout: Layout, packed: bytes) -> None:
    """Raises SegmentError when there is no room for this configuration."""
    if len(packed) > layout.configuration_bytes:
        raise SegmentError(f"room for a configuration of {layout.configuration_bytes} bytes only, and this one has "
                           f"{len(packed)} (compressed); restart gunicorn to make more")


def publish(segment: Segment, ledger: Ledger, data: bytes) -> None:
    """Let the controller go by this configuration from now on. Takes the lock. Raises SegmentError."""
    with ledger.locked():
        lay_down(segment, pack(data))


def lay_down(segment: Segment, packed: bytes) -> None:
    """Let the controller go by this configuration from now on. The ledger's lock must be held. Raises SegmentError."""
    check_room(segment.layout, packed)
    length, buffer, checksum = _parts(segment.cells[at.H_CONFIGURATION])
    if (length, checksum) == (len(packed), zlib.crc32(packed)):
        return
    start = segment.layout.configuration_byte(1 - buffer)
    segment.text[start:start + len(packed)] = packed
    segment.cells[at.H_CONFIGURATION] = len(packed) << 33 | (1 - buffer) << 32 | zlib.crc32(packed)


def published(segment: Segment) -> tuple[int, bytes]:
    """The mark of the newest configuration and what it says; 0 and nothing when there is none yet."""
    for _ in range(_READS):
        mark = segment.cells[at.H_CONFIGURATION]
        length, buffer, checksum = _parts(mark)
        if not mark:
            break
        start = segment.layout.configuration_byte(buffer)
        packed = bytes(segment.text[start:start + length])
        if zlib.crc32(packed) == checksum:
            return mark, zlib.decompress(packed)
    return 0, b""


def _parts(mark: int) -> tuple[int, int, int]:
    return mark >> 33, mark >> 32 & 1, mark & 0xFFFFFFFF
