"""The balancers that share with one another, as this one knows them: for commands, the admin interface and metrics.

One process writes; readers need no lock. An entry's name is written before its kind, so a reader finds it whole or not at all.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefork_lb.shared import layout as at
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import now_ms

_SELF, _OTHER = 1, 2


@dataclass(frozen=True, slots=True)
class Balancer:
    """One of them, this one or another."""

    name: str
    is_self: bool
    heard_ms: int  # when it last reported something new; milliseconds of the monotonic clock
    since_ms: int  # when it was first heard of
    in_flight: int
    round_us: int  # what its last exchange with the store took
    checks: bool  # its checks hold for all

    @property
    def silent_s(self) -> float:
        """How long ago it last reported something new."""
        return max(0, now_ms() - self.heard_ms) / 1000


def balancers(segment: Segment) -> list[Balancer]:
    """All of them by name; none when this one does not share."""
    return sorted((each for _, each in _entries(segment)), key=lambda each: each.name)


def write_balancers(segment: Segment, wanted: list[Balancer]) -> None:
    """These are the balancers now. There is room for 64 of them."""
    cells = segment.cells
    places = {each.name: number for number, each in _entries(segment)}
    names = {each.name for each in wanted}
    for name, number in places.items():
        if name not in names:
            cells[_entry(number)] = 0
    free = [number for number in range(at.BALANCERS) if not cells[_entry(number)]]
    for each in wanted:
        number = places.get(each.name, -1)
        if number < 0 and not free:
            continue
        start = _entry(free.pop() if number < 0 else number)
        if number < 0:
            segment.text[_name(start)] = each.name.encode()[:at.BALANCER_NAME_BYTES - 1].ljust(at.BALANCER_NAME_BYTES, b"\0")
        for cell, value in ((at.B_HEARD, each.heard_ms), (at.B_SINCE, each.since_ms), (at.B_IN_FLIGHT, each.in_flight),
                            (at.B_ROUND_US, each.round_us), (at.B_CHECKS, int(each.checks)),
                            (at.B_KIND, _SELF if each.is_self else _OTHER)):
            cells[start + cell] = value


def is_together(segment: Segment) -> bool:
    """Whether this balancer shares with others now, and does not go on by itself."""
    return bool(segment.cells[at.H_TOGETHER])


def _entries(segment: Segment) -> Iterator[tuple[int, Balancer]]:
    """The entries in use, with their numbers."""
    for number in range(at.BALANCERS):
        start = _entry(number)
        kind, heard, since, in_flight, round_us, checks = segment.cells[start:start + at.B_NAME].tolist()
        if kind:
            name = bytes(segment.text[_name(start)]).split(b"\0", 1)[0].decode(errors="replace")
            yield number, Balancer(name, kind == _SELF, heard, since, in_flight, round_us, bool(checks))


def _entry(number: int) -> int:
    return at.BALANCERS_START + number * at.BALANCER_CELLS


def _name(start: int) -> slice:
    first = (start + at.B_NAME) * at.CELL
    return slice(first, first + at.BALANCER_NAME_BYTES)
