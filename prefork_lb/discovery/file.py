"""A list of servers in a file."""
from __future__ import annotations

import contextlib
import math
import os
import stat
import threading
import time
from pathlib import Path

from prefork_lb.discovery.file_watch import Watch
from prefork_lb.discovery.listing import parse_listing
from prefork_lb.discovery.source import MOST_BYTES, ListError, Listing

# Many programs write a file in place, or replace it in two steps: what cannot be used is read again after this time.
_SETTLES_S = 0.3
_TRIES = 5
_LOOK_S = 0.25

_Mark = tuple[int, int, int, int] | None
"""What tells a file from the one before; None: there is none."""


class FileSource:
    """A file, seen by inotify. Where that cannot see it, as on a network's disk, its mark is looked at."""

    def __init__(self, path: str, interval_s: float) -> None:
        """A mark that has been another one for `interval_s` counts as a change that inotify has missed."""
        self._path = path
        self._interval_s = interval_s
        self._watch: Watch | None = None
        self._mark: _Mark = None

    def look(self) -> Listing:
        for tries_left in reversed(range(_TRIES)):
            self._begin()
            try:
                servers = parse_listing(_content(self._path), Path(self._path).suffix.lower())
            except ListError:
                before = self._mark
                time.sleep(_SETTLES_S)
                if not tries_left or before == _mark(self._path):
                    raise
            else:
                break
        return Listing(servers, math.inf)

    def _begin(self) -> None:
        """Note what the file is, from before it is read."""
        self.close()
        with contextlib.suppress(OSError):
            self._watch = Watch(self._path)
        self._mark = _mark(self._path)

    def wait(self, seconds: float, stop: threading.Event) -> None:
        patience_s = self._interval_s if self._watch is not None else min(self._interval_s, 2 * _LOOK_S)
        other, since = self._mark, time.monotonic()
        end = since + seconds
        while not stop.is_set():
            if self._watch is None:
                stop.wait(_LOOK_S)
            elif self._watch.wait(_LOOK_S):
                return
            mark, now = _mark(self._path), time.monotonic()
            if mark != other:
                other, since = mark, now
            elif now >= end or (mark != self._mark and now - since >= patience_s):
                return

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _mark(path: str) -> _Mark:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _content(path: str) -> bytes:
    try:
        # O_NONBLOCK: the open of a FIFO waits for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ListError("it is not a regular file")
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: NUL in the name
        raise ListError(f"cannot be read: {getattr(exc, 'strerror', exc)}") from exc
    if len(data) > MOST_BYTES:
        raise ListError(f"longer than {MOST_BYTES >> 20} MiB, the most that is read")
    return data
