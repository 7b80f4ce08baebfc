"""An instance whose state file is written and read."""
from __future__ import annotations

from pathlib import Path

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.state_file import StateFile
from prefork_lb.shared.states import States
from prefork_lb.shared.table import PoolEntry, ServerEntry

ADDRESSES = ("10.0.0.1:80", "10.0.0.2:80")
CONFIGURATION = "/etc/prefork_lb.toml"


def entries(*names: str) -> list[PoolEntry]:
    return [PoolEntry(name, [ServerEntry(address, 1, 0, False) for address in ADDRESSES]) for name in names]


class Saving:
    """A controller's hand on the state file, on a clock of its own."""

    def __init__(self, path: Path, segment: Segment, max_age_s: float = 3600) -> None:
        segment.cells[at.H_RESTORED] = 1
        self.now = 1000.0
        self.path = path
        self.states = States(segment)
        self.file = StateFile(path, max_age_s, CONFIGURATION, segment, self.states, clock=lambda: self.now)

    def look(self, after_s: float = 0.25) -> None:
        self.now += after_s
        self.file.look()

    def written(self) -> bool:
        """Whether the file was written since this was asked last."""
        found = self.path.exists()
        self.path.unlink(missing_ok=True)
        return found
