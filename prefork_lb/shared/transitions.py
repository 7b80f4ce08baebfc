"""The observed states of a server, as two state machines in one table.

A server has three states at a time. The result of active checks (`Check`) and of its requests (`Ejection`) change only by the
table below. The operator sets the third (`states.Admin`); it has no table, because every value may follow every other.
`States.is_usable` and `upstream.availability` combine the three.

An event is signalled when a threshold is crossed, not for each check or request. So a pair that is not in the table is our
defect: `after` raises InvariantError, and the state does not change. docs/failures.md shows the table as a diagram.
"""
from __future__ import annotations

import enum
from typing import NamedTuple

from prefork_lb.errors import InvariantError


class Check(enum.IntEnum):
    """A server's state by its active checks."""

    NONE = 0  # it is not checked
    UP = 1
    CHECKING = 2  # no check has passed yet
    DOWN = 3


class Ejection(enum.IntEnum):
    """A server's state by its requests. Only in the first state does it get ordinary requests."""

    NONE = 0  # it is not ejected
    EJECTED = 1  # for a limited time
    TRIAL_DUE = 2  # the next request is its trial
    ON_TRIAL = 3  # that request is under way


class StateEvent(enum.Enum):
    """What makes a server's state change."""

    CHECKS_BEGAN = enum.auto()  # no check has passed yet
    ROSE = enum.auto()
    FELL = enum.auto()
    CHECKS_ENDED = enum.auto()

    FAILED = enum.auto()  # its requests failed too often
    TIME_OVER = enum.auto()
    TRIAL_BEGAN = enum.auto()
    TRIAL_PASSED = enum.auto()
    TRIAL_FAILED = enum.auto()
    TRIAL_LEFT = enum.auto()
    TRIAL_DIED = enum.auto()
    TRIAL_STALLED = enum.auto()


class Transition(NamedTuple):
    """One row of the table."""

    before: Check | Ejection
    event: StateEvent
    after: Check | Ejection
    cause: str
    rises: bool = False  # the server is back: its slow start begins, and outcomes of earlier requests are ignored


TRANSITIONS = (
    Transition(Check.NONE, StateEvent.CHECKS_BEGAN, Check.CHECKING, 'checks begin, with health.start = "checking"'),
    Transition(Check.NONE, StateEvent.ROSE, Check.UP, 'checks begin, with health.start = "up"'),
    # The pool's checks have ended; the controller notices that at its next look.
    Transition(Check.NONE, StateEvent.FELL, Check.DOWN, "a check failed that was under way when checks ended"),
    Transition(Check.CHECKING, StateEvent.ROSE, Check.UP, "the first check passed", rises=True),
    Transition(Check.CHECKING, StateEvent.FELL, Check.DOWN, "health.fall checks failed"),
    Transition(Check.UP, StateEvent.FELL, Check.DOWN, "health.fall checks failed"),
    # The controller did not notice the pause: its own record of the server still says CHECKING.
    Transition(Check.UP, StateEvent.CHECKS_BEGAN, Check.CHECKING, "checks ended and began again, and none has passed yet"),
    Transition(Check.DOWN, StateEvent.ROSE, Check.UP, "health.rise checks passed", rises=True),
    Transition(Check.CHECKING, StateEvent.CHECKS_ENDED, Check.NONE, "the pool has no checks any more"),
    Transition(Check.UP, StateEvent.CHECKS_ENDED, Check.NONE, "the pool has no checks any more"),
    Transition(Check.DOWN, StateEvent.CHECKS_ENDED, Check.NONE, "the pool has no checks any more"),

    Transition(Ejection.NONE, StateEvent.FAILED, Ejection.EJECTED, "its requests failed too often"),
    Transition(Ejection.EJECTED, StateEvent.TIME_OVER, Ejection.TRIAL_DUE, "the time of the ejection is over"),
    Transition(Ejection.TRIAL_DUE, StateEvent.TRIAL_BEGAN, Ejection.ON_TRIAL, "a request is sent to it as its trial"),
    Transition(Ejection.ON_TRIAL, StateEvent.TRIAL_PASSED, Ejection.NONE, "it answered the trial", rises=True),
    Transition(Ejection.ON_TRIAL, StateEvent.TRIAL_FAILED, Ejection.EJECTED, "the trial failed"),
    # The outcome of the trial is unknown, so the server gets another trial soon.
    Transition(Ejection.ON_TRIAL, StateEvent.TRIAL_LEFT, Ejection.EJECTED,
               "the client of the trial left, or a kept connection had ended"),
    Transition(Ejection.ON_TRIAL, StateEvent.TRIAL_DIED, Ejection.TRIAL_DUE, "the worker of the trial died"),
    # The worker may be stopped for minutes. When it runs again, the outcome of its request is ignored.
    Transition(Ejection.ON_TRIAL, StateEvent.TRIAL_STALLED, Ejection.TRIAL_DUE, "the worker of the trial does not run"),
)

# The key has the type: both machines number their states from 0, and equal integers of two IntEnums compare equal.
_BY_PAIR = {(type(row.before), row.before, row.event): row for row in TRANSITIONS}


def after(before: Check | Ejection, event: StateEvent) -> Transition:
    """The row of the table for this state and event. Raises InvariantError when there is none."""
    row = _BY_PAIR.get((type(before), before, event))
    if row is None:
        raise InvariantError(f"a server that is {before!r} cannot have the event {event.name}")
    return row
