"""The configuration in force. The newest workers write it into the segment; the controller and later workers read it there.

They do not read the file: a worker has checked this copy, and the file may have been broken since.

The configuration is compressed, and there are two buffers. One header cell holds the length, the number of the current buffer
and the checksum. A writer, under the lock, fills the other buffer, then makes it current by one store to this cell. So a writer
that is killed leaves the old configuration in force. A reader takes no lock. Two writes during one read overwrite the buffer
that is being read; the checksum then differs, and the reader reads again.
"""
from __future__ import annotations

import zlib

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.segment import Segment, SegmentError

_READS = 100


def pack(data: bytes) -> bytes:
    """Compress a configuration as it is stored in the segment. `publish` needs room for the result."""
    return zlib.compress(data)


def check_room(layout: Layout, packed: bytes) -> None:
    """Raises SegmentError when there is no room for this configuration."""
    if len(packed) > layout.configuration_bytes:
        raise SegmentError(f"room for a configuration of {layout.configuration_bytes} bytes only, and this one has "
                           f"{len(packed)} (compressed); restart gunicorn to make more")


def is_published(segment: Segment, packed: bytes) -> bool:
    """Whether this configuration, compressed, is the one in force."""
    length, _, checksum = _parts(segment.cells[at.H_CONFIGURATION])
    return (length, checksum) == (len(packed), zlib.crc32(packed))


def publish(segment: Segment, ledger: Ledger, data: bytes) -> None:
    """Make this the configuration in force. Takes the lock. Raises SegmentError when there is no room for it."""
    with ledger.locked():
        lay_down(segment, pack(data))


def lay_down(segment: Segment, packed: bytes) -> bool:
    """Like `publish`, with a configuration that is compressed already. Returns whether it is another one than before.

    The ledger's lock must be held.
    """
    check_room(segment.layout, packed)
    if is_published(segment, packed):
        return False
    _, buffer, _ = _parts(segment.cells[at.H_CONFIGURATION])
    start = segment.layout.configuration_byte(1 - buffer)
    segment.text[start:start + len(packed)] = packed
    segment.cells[at.H_CONFIGURATION] = len(packed) << 33 | (1 - buffer) << 32 | zlib.crc32(packed)
    return True


def published(segment: Segment) -> tuple[int, bytes]:
    """The header cell of the newest configuration, and the configuration; 0 and b"" when there is none yet."""
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
