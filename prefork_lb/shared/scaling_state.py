"""The scaling of pools in shared memory: how many servers the controller wants and has, why, and what operators have asked for.

Operators write what they ask for, the controller the rest; each is one store of a cell, so whoever is killed leaves it as it was
or as it is to be. A controller that follows another one finds what was asked for.
"""
from __future__ import annotations

import enum
from dataclasses import dataclass

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.text import read_note, write_note


class Mode(enum.IntEnum):
    """What decides on a pool's servers."""

    NONE = 0  # the pool does not scale
    AUTO = 1  # the rule
    FIXED = 2  # an operator


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the controller last wrote."""

    mode: Mode
    most: int
    wanted: int
    running: int  # servers that take requests
    starting: int
    ending: int
    why: str
    is_rolling: bool = False  # an operator has asked for new servers in place of all, and that is not over; not written


@dataclass(frozen=True, slots=True)
class Roll:
    """An operator's wish that servers be replaced."""

    before_ms: int  # those that were started before this instant of the monotonic clock
    surge: int  # so many new ones at a time


def scaling_of(segment: Segment, number: int) -> Scaling | None:
    """The scaling of the pool with this number; None: it does not scale. Needs no lock."""
    start = segment.layout.pool_scaling(number)
    mode = Mode(segment.cells[start + at.F_MODE])
    if mode is Mode.NONE:
        return None
    most, wanted, running, starting, ending = segment.cells[start + at.F_MOST:start + at.F_ENDING + 1].tolist()
    why = read_note(segment.text, segment.layout.pool_note_byte(number))
    return Scaling(mode, most, wanted, running, starting, ending, why, asked_roll(segment, number) is not None)


def write_scaling(segment: Segment, number: int, scaling: Scaling) -> None:
    """Let operators know. The ledger's lock must be held, and the caller be the controller."""
    start = segment.layout.pool_scaling(number)
    write_note(segment.text, segment.layout.pool_note_byte(number), scaling.why)
    for cell, value in ((at.F_MOST, scaling.most), (at.F_WANTED, scaling.wanted), (at.F_RUNNING, scaling.running),
                        (at.F_STARTING, scaling.starting), (at.F_ENDING, scaling.ending), (at.F_MODE, scaling.mode)):
        segment.cells[start + cell] = value


def forget_scaling(segment: Segment, number: int) -> None:
    """Let the pool with this number not scale, and nothing be asked for. The ledger's lock must be held."""
    start = segment.layout.pool_scaling(number)
    for cell in range(start, start + at.SCALING_CELLS):
        segment.cells[cell] = 0


def asked_servers(segment: Segment, number: int) -> int | None:
    """How many servers an operator wants; None: the rule decides."""
    value = segment.cells[segment.layout.pool_scaling(number) + at.F_SET]
    return value - 1 if value else None


def ask_for_servers(segment: Segment, number: int, count: int | None) -> None:
    """Want so many servers; None: let the rule decide. The ledger's lock must be held."""
    segment.cells[segment.layout.pool_scaling(number) + at.F_SET] = 0 if count is None else count + 1


def asked_roll(segment: Segment, number: int) -> Roll | None:
    """The replacement that an operator wants, until `end_roll`; None: none."""
    start = segment.layout.pool_scaling(number)
    before = segment.cells[start + at.F_ROLL_BEFORE]
    return Roll(before, segment.cells[start + at.F_ROLL_SURGE]) if before else None


def ask_for_roll(segment: Segment, number: int, roll: Roll) -> None:
    """Want a replacement. The ledger's lock must be held."""
    start = segment.layout.pool_scaling(number)
    segment.cells[start + at.F_ROLL_SURGE] = roll.surge
    segment.cells[start + at.F_ROLL_BEFORE] = roll.before_ms  # last: it says that there is one


def end_roll(segment: Segment, number: int) -> None:
    """Take note that it is done, or was given up. The ledger's lock must be held."""
    segment.cells[segment.layout.pool_scaling(number) + at.F_ROLL_BEFORE] = 0
