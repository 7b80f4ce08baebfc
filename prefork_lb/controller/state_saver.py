"""Writes the state file in a thread: a disk that hangs must not hold up the controller's other duties."""
from __future__ import annotations

import threading
from pathlib import Path

from prefork_lb.controller.duties import Duties
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.state_file import StateFile
from prefork_lb.shared.states import States

_EVERY_S = 0.25
_END_S = 5.0  # for the last write; then the controller ends without it


class StateSaver:
    """A thread that keeps the state file of the configuration in force."""

    def __init__(self, segment: Segment, states: States) -> None:
        self._segment = segment
        self._states = states
        self._wanted: tuple[Path, float, str] | None = None
        self._in_use: tuple[Path, float, str] | None = None
        self._file: StateFile | None = None
        self._duties = Duties({"keep the state file": self._keep_file})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefork_lb state file", daemon=True)
        self._thread.start()

    def use(self, file: str, max_age_s: float, configuration: str) -> None:
        """Write to this file from now on; empty: to none. `configuration` is the path of the file that says so."""
        self._wanted = (Path(file), max_age_s, configuration) if file else None

    def close(self) -> None:
        """Write the file a last time and end."""
        self._stop.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._duties.look()
        self._duties.look()
        if self._file is not None:
            self._file.close()

    def _keep_file(self) -> None:
        if self._wanted != self._in_use:
            if self._file is not None:
                self._file.close()
            self._in_use = self._wanted
            self._file = StateFile(*self._in_use, self._segment, self._states) if self._in_use else None
        if self._file is not None:
            self._file.look()
