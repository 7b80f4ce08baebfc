"""The last minute and a half of an instance's numbers: a page that is opened because something is wrong shows how it came."""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

LOOKS = 90  # one a second
CODES_EVERY = 10  # looks
_CODES = 7  # so many are kept: the oldest is a minute old
_TOTALS = ("rate", "error_rate", "p50_ms", "p99_ms", "in_flight", "clients", "waiting")
_POOL = ("rate", "p99_ms")
_SERVER = ("rate", "latency_ms")

Document = dict[str, Any]


class _Lines:
    """The fields of one thing, look by look, and now and then its counters of responses by class."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._fields = fields
        self._looks: deque[list[Any]] = deque(maxlen=LOOKS)
        self._codes: deque[Any] = deque(maxlen=_CODES)

    def note(self, now: Document, with_codes: bool) -> None:
        self._looks.append([now[field] for field in self._fields])
        if with_codes:
            self._codes.append(now.get("codes"))

    def document(self) -> Document:
        columns = zip(*self._looks, strict=True)
        return {**dict(zip(self._fields, map(list, columns), strict=True)), "codes": self._codes[0] if self._codes else None}


class History:
    """Notes documents of an instance, one a second. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks = 0
        self._lines: dict[tuple[str, ...], _Lines] = {}

    def note(self, document: Document) -> None:
        """Take over the numbers of a look. What is no longer there is forgotten."""
        with self._lock:
            with_codes = self._looks % CODES_EVERY == 0
            self._looks += 1
            before, self._lines = self._lines, {}
            for key, fields, now in _things(document):
                self._lines[key] = lines = before.get(key) or _Lines(fields)
                lines.note(now, with_codes)

    def document(self) -> Document:
        """{"totals": LINES, "pools": {NAME: LINES}, "servers": {NAME: {ADDRESS: LINES}}}, oldest first. LINES has a list for each
        field, and `codes`: the counters of a minute ago."""
        found: Document = {"totals": {}, "pools": {}, "servers": {}}
        with self._lock:
            for key, lines in self._lines.items():
                if not key:
                    found["totals"] = lines.document()
                elif len(key) == 1:
                    found["pools"][key[0]] = lines.document()
                else:
                    found["servers"].setdefault(key[0], {})[key[1]] = lines.document()
        return found


def _things(document: Document) -> Iterable[tuple[tuple[str, ...], tuple[str, ...], Document]]:
    yield (), _TOTALS, document["totals"]
    for pool in document["pools"]:
        yield (pool["name"],), _POOL, pool
        for server in pool["servers"]:
            yield (pool["name"], server["address"]), _SERVER, server
