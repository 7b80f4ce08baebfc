"""Sweeping: what ended workers left is given back, servers that nobody names are dropped, and ejections end; a segment that
somebody has removed is told.

The controller sweeps four times a second, for all workers. While no controller does, the workers sweep: the first one that
finds the last sweep too long ago. So the work does not grow with the number of workers, which would each look at all others.
"""
from __future__ import annotations

import logging

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.table import free_unused

# Twice the controller's interval and a bit: claims of a killed worker must be given back within a second, whoever does it.
_OVERDUE_MS = 600

log = logging.getLogger("prefork_lb")


class Sweeper:
    """One process' sweeps of a segment."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States) -> None:
        self._segment = segment
        self._ledger = ledger
        self._states = states

    def sweep(self) -> None:
        """Sweep now. Takes the ledger's lock only where there is something to do. Raises OSError when /proc cannot be read."""
        # Noted before the work: should this process freeze in it, another one sweeps after a while.
        self._segment.cells[at.H_SWEPT] = now_ms()
        self._tell_of_removal()
        reclaimed = self._ledger.reclaim_dead()
        if reclaimed.claims:
            log.warning("%d claims of ended workers given back", reclaimed.claims)
        # Not only after a row was given back here: a new worker or a command may have done that just before.
        free_unused(self._segment, self._ledger)
        if self._states.is_time():
            with self._ledger.locked():
                self._states.let_time_pass()

    def sweep_if_overdue(self) -> None:
        """Sweep if no process has for too long. One comparison while the controller does its work. Raises OSError as `sweep`."""
        # Two workers that look at the same time both sweep, which does no harm.
        if now_ms() - self._segment.cells[at.H_SWEPT] > _OVERDUE_MS:
            self.sweep()

    def _tell_of_removal(self) -> None:
        cells = self._segment.cells
        if cells[at.H_REMOVED] or not self._segment.is_removed or not self._segment.masters():
            return
        with self._ledger.locked():
            is_told, cells[at.H_REMOVED] = cells[at.H_REMOVED], 1
        if not is_told:
            log.error("%s was removed while this instance runs. The instance goes on with the memory that it has mapped, and new "
                      "workers, the controller and commands find it through /proc. Find what removes files from %s (systemd's "
                      "RemoveIPC, a cleaner of temporary files) and restart gunicorn at the next occasion",
                      DIRECTORY / self._segment.name, DIRECTORY)
