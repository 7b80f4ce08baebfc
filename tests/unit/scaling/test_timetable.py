"""Times of the week in local time, also when clocks are changed."""
from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from prefork_lb.scaling.timetable import parse_time, time_in_force

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def local_time_is_berlins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


WEEK = [parse_time("Mon-Fri 08:00"), parse_time("Mon-Thu 20:00"), parse_time("Fri 16:30")]


@pytest.mark.parametrize(("now", "expected"), [
    ("2026-11-30 07:59:59", 2),  # a Monday: Friday's still holds
    ("2026-11-30 08:00:00", 0), ("2026-11-30 19:59:59", 0), ("2026-11-30 20:00:00", 1), ("2026-12-01 03:00:00", 1),
    ("2026-12-04 16:29:59", 0), ("2026-12-04 16:30:00", 2), ("2026-12-06 12:00:00", 2)])
def test_a_time_holds_until_the_next_one(now: str, expected: int) -> None:
    assert time_in_force(WEEK, at(now)) == expected


def test_a_single_time_always_holds() -> None:
    assert time_in_force([parse_time("Wed 12:00")], at("2026-12-02 11:59:59")) == 0


def test_no_times_hold_nothing() -> None:
    assert time_in_force([], at("2026-12-02 11:59:59")) is None


def test_of_two_at_the_same_instant_the_later_one_counts() -> None:
    assert time_in_force([parse_time("08:00"), parse_time("Mon 08:00")], at("2026-11-30 09:00:00")) == 1


def test_a_time_that_the_clock_passes_over_comes_when_it_would_have_come() -> None:
    times = [parse_time("00:00"), parse_time("02:30")]  # on 2026-03-29, 02:00 is 03:00
    assert time_in_force(times, at("2026-03-29 01:59:59")) == 0
    assert time_in_force(times, at("2026-03-29 03:29:59")) == 0
    assert time_in_force(times, at("2026-03-29 03:30:00")) == 1


def test_a_time_that_the_clock_shows_twice_holds_from_the_first_one_on() -> None:
    times = [parse_time("00:00"), parse_time("02:30")]  # on 2026-10-25, 03:00 is 02:00
    assert time_in_force(times, at("2026-10-25 02:29:59")) == 0
    assert time_in_force(times, at("2026-10-25 02:30:00")) == 1
    assert time_in_force(times, at("2026-10-25 02:10:00", fold=1)) == 1
    assert time_in_force(times, at("2026-10-25 02:40:00", fold=1)) == 1


@pytest.mark.parametrize(("text", "days"), [
    ("08:00", {0, 1, 2, 3, 4, 5, 6}), ("Mon 8:00", {0}), ("Mon-Fri 08:00", {0, 1, 2, 3, 4}), ("sat,SUN 08:00", {5, 6}),
    ("Fri-Mon 08:00", {4, 5, 6, 0}), ("Mon,Wed-Thu 08:00", {0, 2, 3})])
def test_days(text: str, days: set[int]) -> None:
    assert parse_time(text).days == days


@pytest.mark.parametrize("text", ["", "Mon", "24:00", "12:60", "12", "Mon- 12:00", "Monday 12:00", "Mon;Tue 12:00", "Mon 12:00x"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_time(text)
