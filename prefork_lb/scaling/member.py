"""A server of a fleet: where it stands in its life, by one table."""
from __future__ import annotations

import enum
from dataclasses import dataclass

from prefork_lb.errors import InvariantError


class State(enum.Enum):
    """Where a server stands in its life."""

    STARTING = "starting"  # its check has not passed yet; it is in no pool
    SERVING = "serving"  # it is in its pool
    DRAINING = "draining"  # it is in its pool, and gets no new requests
    PARKED = "parked"  # it is in no pool, and runs: a roll may go back to it
    STOPPING = "stopping"  # it was asked to end


class MemberEvent(enum.Enum):
    """What makes it go on. Its end is none of these: then there is no server any more."""

    READY = enum.auto()  # its check has passed
    LATE = enum.auto()  # its check has not passed in time
    DISMISSED = enum.auto()  # it is not needed
    DRAINED = enum.auto()  # nothing is left on it, or the time for that is over
    SPARED = enum.auto()  # the same, and it may be needed again
    RECALLED = enum.auto()  # it is needed again


TRANSITIONS = {
    (State.STARTING, MemberEvent.READY): State.SERVING,
    (State.STARTING, MemberEvent.LATE): State.STOPPING,
    (State.STARTING, MemberEvent.DISMISSED): State.STOPPING,
    (State.SERVING, MemberEvent.DISMISSED): State.DRAINING,
    (State.DRAINING, MemberEvent.RECALLED): State.SERVING,
    (State.DRAINING, MemberEvent.DRAINED): State.STOPPING,
    (State.DRAINING, MemberEvent.SPARED): State.PARKED,
    (State.PARKED, MemberEvent.RECALLED): State.SERVING,
    (State.PARKED, MemberEvent.DISMISSED): State.STOPPING,
}


@dataclass(slots=True)
class Member:
    """A server that runs, or is about to. Instants are those of the fleet's clock."""

    n: int
    since: float  # when it was started
    state: State
    state_since: float
    stop_timeout_s: float  # that it was started with
    address: str = ""  # empty: not known yet
    why: str = ""  # it is in this state, in words
    worn: str = ""  # why it is to be replaced; empty: it is not
    down_since: float | None = None  # its check fails; None: it does not, or is not known
    lost: str = ""  # why it is to be replaced unless its check passes again; empty: it is not
    is_killed: bool = False

    def go_on(self, event: MemberEvent, now: float, why: str) -> None:
        """Raises InvariantError where the table lacks the step."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise InvariantError(f"a server that is {self.state.value} cannot have the event {event.name}")
        self.state, self.state_since, self.why = state, now, why
