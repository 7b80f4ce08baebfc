"""Looks at one source again and again, in a thread: a source may hang, and nobody else waits for it."""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prefork_lb.discovery.source import ListError, Source
from prefork_lb.shared.table import ServerEntry

log = logging.getLogger("prefork_lb")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of the last look."""

    number: int = 0  # of looks so far; 0: there was none yet
    servers: Mapping[str, ServerEntry] | None = None  # the last good list; None: there was none
    good_at: float = 0.0  # when it was good last, in seconds since the epoch
    error: str = ""  # why the last look failed; empty: it did not


class Finder:
    """Of one pool. `outcome` may be read at any time."""

    def __init__(self, name: str, make_source: Callable[[], Source], min_servers: int, again_s: float) -> None:
        """A list of fewer than `min_servers` is not believed; after a failure it looks again in `again_s`."""
        self.outcome = Outcome()
        self._name = name
        self._make_source = make_source
        self._min_servers = min_servers
        self._again_s = again_s
        self._stop = threading.Event()
        threading.Thread(target=self._run, name=f"prefork_lb discovery {name}", daemon=True).start()

    def close(self) -> None:
        """Look no more. The thread ends when its look has ended."""
        self._stop.set()

    def _run(self) -> None:
        source = self._make_source()
        while not self._stop.is_set():
            source.wait(self._look(source), self._stop)
        source.close()

    def _look(self, source: Source) -> float:
        """Look once; the seconds until the next look."""
        before, error, again_s = self.outcome, "", self._again_s
        servers, good_at = before.servers, before.good_at
        try:
            found = source.look()
            if len(found.servers) < self._min_servers:
                raise ListError(f"it lists {len(found.servers)} servers, fewer than {self._min_servers} (min_servers)")
            servers, good_at, again_s = found.servers, time.time(), found.again_s
        except ListError as exc:
            error = str(exc)
        except Exception as exc:
            log.exception("discovery of the pool %s: a look has failed in a way that it must not", self._name)
            error = repr(exc)
        self.outcome = Outcome(before.number + 1, servers, good_at, error)
        return again_s
