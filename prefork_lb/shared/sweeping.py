"""A sweep gives back the claims of ended workers, frees servers that no configuration names, and ends ejections whose time is
over. It also logs when the segment's file has been removed.

The controller sweeps four times a second, for all workers. When the last sweep is too long ago, the first worker that notices
sweeps. So the work does not grow with the number of workers; if every worker swept, each would look at all the others.
"""
from __future__ import annotations

import logging

from prefork_lb.shared import layout as at
from prefork_lb.shared.finding import DIRECTORY
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States, now_ms
from prefork_lb.shared.table import free_unused

# A little over twice the controller's interval. Claims of a killed worker must be given back within a second, also without a
# controller.
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
        # Written before the work: if this process freezes in the middle of it, another process sweeps after a while.
        self._segment.cells[at.H_SWEPT] = now_ms()
        self._tell_of_removal()
        reclaimed = self._ledger.reclaim_dead()
        if reclaimed.claims:
            log.warning("%d claims of ended workers given back", reclaimed.claims)
        # Also when no row was given back here: a new worker or a command may have done that just before.
        free_unused(self._segment, self._ledger)
        if self._states.is_time():
            with self._ledger.locked():
                self._states.let_time_pass()

    def sweep_if_overdue(self) -> None:
        """Sweep if no process has for too long. One comparison while the controller does its work. Raises OSError as `sweep`."""
        # Two workers that look at the same time both sweep. That does no harm.
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
