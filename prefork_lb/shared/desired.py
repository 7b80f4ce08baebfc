"""The configuration in force, laid beside the segment by the newest workers, for the controller to go by.

The controller reads this and not the file: a worker has checked it, and a file that went bad meanwhile does not matter.
"""
from __future__ import annotations

import os
import zlib

from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import CONFIGURATION, CONFIGURATION_IN_WORK, Segment, SegmentError, companion


def publish(segment: Segment, ledger: Ledger, data: bytes) -> None:
    """Let the controller go by this configuration from now on. Raises SegmentError."""
    mark = zlib.crc32(data) + 1  # never 0, which stands for none
    with ledger.locked():
        if segment.cells[at.H_CONFIGURATION] == mark:
            return
        path = companion(segment.name, CONFIGURATION)
        fresh = companion(segment.name, CONFIGURATION_IN_WORK)
        try:
            # Another's file or link of this name is not followed, and what is in it is nobody else's business.
            fresh.unlink(missing_ok=True)
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(data)
            fresh.rename(path)
        except OSError as exc:
            raise SegmentError(f"{fresh}: {exc.strerror}; the controller needs its configuration there") from exc
        segment.cells[at.H_CONFIGURATION] = mark


def published(segment: Segment) -> tuple[int, bytes]:
    """The mark of the newest configuration and what it says; 0 and nothing when there is none yet."""
    mark = segment.cells[at.H_CONFIGURATION]
    if not mark:
        return 0, b""
    data = companion(segment.name, CONFIGURATION).read_bytes()
    return zlib.crc32(data) + 1, data
