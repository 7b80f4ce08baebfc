"""Times of the week, in local time, from which on something holds until the next one."""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prefork_lb.errors import shown

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_TIME = re.compile(r"(?:(\S+) +)?([01]?[0-9]|2[0-3]):([0-5][0-9])")
_EXPECTED = 'expected one like "08:00", "Mon-Fri 08:00" or "Sat,Sun 10:30"'


@dataclass(frozen=True, slots=True)
class TimeOfWeek:
    """A time of day on some days of the week: Monday is 0."""

    days: frozenset[int]
    hour: int
    minute: int

    def last(self, now: datetime) -> datetime | None:
        """The last instant of it that is not after `now`, in the 8 days before."""
        for ago in range(9):
            day = now.date() - timedelta(days=ago)
            if day.weekday() in self.days:
                # A clock that is put forward passes over this time: then it is the instant that the clock would show without
                # that. One that is put back shows it twice: then it is the first one (PEP 495, fold=0). `timestamp` knows.
                instant = datetime(day.year, day.month, day.day, self.hour, self.minute)
                if instant.timestamp() <= now.timestamp():
                    return instant
        return None


def parse_time(text: str) -> TimeOfWeek:
    """Parse "Mon-Fri 08:00", "Sat,Sun 10:30", or "08:00" for every day. Raises ValueError that says what is expected."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{shown(text)} is no time of a week; {_EXPECTED}")
    days: set[int] = set()
    for part in (match[1] or "Mon-Sun").split(","):
        first, dash, last = part.partition("-")
        begin, end = _day(first, text), _day(last if dash else first, text)
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return TimeOfWeek(frozenset(days), int(match[2]), int(match[3]))


def time_in_force(times: Sequence[TimeOfWeek], now: float) -> int | None:
    """Which of these times was last, at `now` in seconds of the epoch; of two at the same instant the later in the list.

    None only if there are none.
    """
    instant = datetime.fromtimestamp(now)
    best: tuple[float, int] | None = None
    for number, time in enumerate(times):
        last = time.last(instant)
        if last is not None and (best is None or last.timestamp() >= best[0]):
            best = last.timestamp(), number
    return best[1] if best is not None else None


def _day(name: str, text: str) -> int:
    if name.capitalize() not in DAYS:
        raise ValueError(f"{shown(name)} in {shown(text)} is no day; expected {', '.join(DAYS)}")
    return DAYS.index(name.capitalize())
