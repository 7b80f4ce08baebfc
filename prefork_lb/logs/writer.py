"""The access log of a worker: takes the records of exchanges, and writes their lines in batches."""
from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque

from prefork_lb.log_summary import summary
from prefork_lb.logs.lines import Format
from prefork_lb.logs.sinks import Sink
from prefork_lb.proxy.request import FINISHED, Request

_BATCH_LINES = 128  # some 64 KiB
_MOST_WAITING = 8192  # lines that a reader which takes nothing may let wait in the worker
_LAST_CHANCE_S = 1.0
_LAST_LOOK_S = 0.01

class AccessLog:
    """Threads may share it. Nothing here waits, but for `close`; nothing raises."""

    def __init__(self, name: str, make_line: Format, sink: Sink, sample: float = 1.0) -> None:
        """`name` is for messages. Of exchanges that finished with a status below 500, the share `sample` is written."""
        self._name = name
        self._make_line = make_line
        self._sink = sink
        self._sample = sample
        self._lines: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._must_reopen = False
        self._lost = 0  # lines, since the last one that could be written

    def write(self, request: Request) -> None:
        """The exchange is over: its line goes out with the next batch."""
        if self._sample < 1 and request.ending is FINISHED and request.status < 500 and random.random() >= self._sample:
            return
        try:
            self._lines.append(self._make_line(request))
        except Exception as exc:
            summary.tell(logging.ERROR, "no line", "a line of the access log cannot be made: %r", exc, exc_info=exc)
        if len(self._lines) >= _BATCH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what has come. To be called a few times a second."""
        if not self._lines and not self._must_reopen:
            return
        if not self._writing.acquire(blocking=False):
            return  # another thread is at it
        try:
            if self._must_reopen:
                self._must_reopen = False
                self._sink.reopen()
            self._write_all()
        finally:
            self._writing.release()

    def reopen_soon(self) -> None:
        """The file was moved away. A signal's handler may call this."""
        self._must_reopen = True

    def close(self) -> None:
        """Write the rest: the process ends."""
        until = time.monotonic() + _LAST_CHANCE_S
        self.flush()
        while self._lines and time.monotonic() < until:
            time.sleep(_LAST_LOOK_S)
            self.flush()
        self._sink.close()

    def _write_all(self) -> None:
        lines = self._lines
        batch = [lines.popleft() for _ in range(len(lines))]
        if not batch:
            return
        done, error = self._sink.write(batch)
        left = batch[done:]
        if not left:
            self._tell_recovery()
        elif error is None:
            lines.extendleft(reversed(left[-_MOST_WAITING:]))
            self._lose(len(left) - _MOST_WAITING, "its reader takes nothing")
        else:
            self._lose(len(left), error.strerror or str(error))

    def _lose(self, count: int, why: str) -> None:
        if count > 0:
            if not self._lost:
                summary.tell(logging.ERROR, ("access log", why),
                             "access log %s: cannot be written, lines are lost until it can: %s", self._name, why)
            self._lost += count

    def _tell_recovery(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            summary.tell(logging.WARNING, "access log", "access log %s: is written again; %d lines were lost", self._name, lost)
