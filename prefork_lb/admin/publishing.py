"""One look at the instance a second, for all readers: the document, and what has changed in it since the look before."""
from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

import msgspec

from prefork_lb.admin.delta import delta
from prefork_lb.observe.history import History
from prefork_lb.observe.snapshot import Snapshots

_EVERY_S = 1.0

log = logging.getLogger("prefork_lb")


@dataclass(frozen=True)
class Frame:
    """What one look has found."""

    number: int
    document: dict[str, Any]
    change: bytes | None  # against the frame before, as JSON; None: a reader needs the whole document

    def encoded(self) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self.document)


class Publisher:
    """A thread that looks once a second. Readers take the newest frame, or wait for the next one."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._looking = threading.Lock()
        self._news = threading.Condition()
        self._newest = Frame(1, snapshots.take(), None)
        self._history = History()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="snapshots", daemon=True).start()

    @property
    def newest(self) -> Frame:
        """The newest frame, about a second old at most."""
        return self._newest

    def history(self) -> bytes:
        """The numbers of the last minute and a half, as JSON."""
        return msgspec.json.encode(self._history.document())

    def look(self) -> Frame:
        """Look now, and tell all that wait."""
        with self._looking:
            before = self._newest
            document = self._snapshots.take()
            change = delta(before.document, document)
            frame = Frame(before.number + 1, document, msgspec.json.encode(change) if change is not None else None)
            with self._news:
                self._newest = frame
                self._news.notify_all()
        return frame

    def wait(self, number: int, timeout_s: float) -> Frame | None:
        """The newest frame, once there is one after this number; None when none came in time."""
        with self._news:
            self._news.wait_for(lambda: self._newest.number > number, timeout_s)
            return self._newest if self._newest.number > number else None

    def _run(self) -> None:
        wait = threading.Event()
        while True:
            wait.wait(_EVERY_S)
            try:
                self._history.note(self.look().document)
            except Exception:
                log.exception("the administration interface cannot look at the instance; it tries again")
                wait.wait(_EVERY_S)
