"""A server of a fleet: where it stands in its life, by one table."""
from __future__ import annotations

import enum
from dataclasses import dataclass

from prefork_lb.errors import InvariantError


class ScaledState(enum.Enum):
    """Where a server stands in its life."""

    STARTING = "starting"  # its check has not passed yet; it is in no pool
    SERVING = "serving"  # it is in its pool
    DRAINING = "draining"  # it is in its pool, and gets no new requests
    PARKED = "parked"  # it is in no pool, and runs: a roll may go back to it
    STOPPING = "stopping"  # it was asked to end


class ScaledEvent(enum.Enum):
    """What makes it go on. Its end is none of these: then there is no server any more."""

    READY = enum.auto()  # its check has passed
    LATE = enum.auto()  # its check has not passed in time
    DISMISSED = enum.auto()  # it is not needed
    DRAINED = enum.auto()  # nothing is left on it, or the time for that is over
    SPARED = enum.auto()  # the same, and it may be needed again
    RECALLED = enum.auto()  # it is needed again


TRANSITIONS = {
    (ScaledState.STARTING, ScaledEvent.READY): ScaledState.SERVING,
    (ScaledState.STARTING, ScaledEvent.LATE): ScaledState.STOPPING,
    (ScaledState.STARTING, ScaledEvent.DISMISSED): ScaledState.STOPPING,
    (ScaledState.SERVING, ScaledEvent.DISMISSED): ScaledState.DRAINING,
    (ScaledState.DRAINING, ScaledEvent.RECALLED): ScaledState.SERVING,
    (ScaledState.DRAINING, ScaledEvent.DRAINED): ScaledState.STOPPING,
    (ScaledState.DRAINING, ScaledEvent.SPARED): ScaledState.PARKED,
    (ScaledState.PARKED, ScaledEvent.RECALLED): ScaledState.SERVING,
    (ScaledState.PARKED, ScaledEvent.DISMISSED): ScaledState.STOPPING,
}


@dataclass(slots=True)
class ScaledServer:
    """A server that runs, or is about to. Instants are those of the fleet's clock."""

    n: int
    since: float  # when it was started
    state: ScaledState
    state_since: float
    stop_timeout_s: float  # that it was started with
    address: str = ""  # empty: not known yet
    why: str = ""  # it is in this state, in words
    worn: str = ""  # why it is to be replaced; empty: it is not
    down_since: float | None = None  # its check fails; None: it does not, or is not known
    lost: str = ""  # why it is to be replaced unless its check passes again; empty: it is not
    is_killed: bool = False

    def go_on(self, event: ScaledEvent, now: float, why: str) -> None:
        """Raises InvariantError where the table lacks the step."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise InvariantError(f"a server that is {self.state.value} cannot have the event {event.name}")
        self.state, self.state_since, self.why = state, now, why
