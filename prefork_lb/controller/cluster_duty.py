"""Keeps the process running that shares with other balancers, and drops their reports when no new ones come."""
from __future__ import annotations

import logging
from collections.abc import Sequence

from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.controller.supervisor import Supervisor, command_of
from prefork_lb.shared.balancers import balancers
from prefork_lb.shared.elsewhere import Elsewhere
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import States

log = logging.getLogger("prefork_lb")


class ClusterDuty:
    """The controller's part of `[cluster]`. The process may hang or be killed: then requests must not go by its last reports."""

    def __init__(self, segment: Segment, ledger: Ledger, states: States, error_log: str,
                 command: Sequence[str] = command_of("prefork_lb.cluster")) -> None:
        self._segment, self._ledger = segment, ledger
        self._process = Supervisor(segment, error_log, "the process that shares with other balancers", command)
        self._elsewhere = Elsewhere(segment, ledger, states)

    def use(self, cluster: ClusterConfig | None) -> None:
        """Go by this section from the next look on; None: this balancer shares with no other."""
        self._process.use(cluster)
        if cluster is None:
            self._elsewhere.forget()

    def look(self) -> None:
        """To be called a few times a second, from the main thread."""
        if self._elsewhere.go_alone_if_silent():
            why = "the process that shares has been silent for a second"
            log.error("this balancer goes on by itself: %s", why)
            name = next((each.name for each in balancers(self._segment) if each.is_self), "this balancer")
            with self._ledger.locked():
                record_event(self._segment, EventKind.BALANCER_LEFT, f"{name} goes on by itself: {why}")
        self._process.look()

    def close(self) -> None:
        """End the process."""
        self._process.close()
