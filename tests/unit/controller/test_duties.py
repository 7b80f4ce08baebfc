"""One duty that fails stops no other, and says so without flooding the log."""
from __future__ import annotations

import logging

import pytest

from prefork_lb.controller.duties import Duties, do_at_the_end


class Trouble:
    """A duty that fails as long as it is told to."""

    def __init__(self) -> None:
        self.why = ""
        self.done = 0

    def do(self) -> None:
        if self.why:
            raise RuntimeError(self.why)
        self.done += 1


def test_the_others_are_done_whichever_fails() -> None:
    troubles = [Trouble() for _ in range(3)]
    duties = Duties({str(number): trouble.do for number, trouble in enumerate(troubles)})
    for failing in troubles:
        failing.why = "no"
        duties.look()
        failing.why = ""
    assert [trouble.done for trouble in troubles] == [2, 2, 2]


def test_what_fails_in_the_same_way_is_told_once_a_minute_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "prefork_lb")
    now, trouble = 0.0, Trouble()
    duties = Duties({"sweep": trouble.do}, clock=lambda: now)

    def told() -> list[str]:
        duties.look()
        found = [record.getMessage().partition(";")[0] for record in caplog.records]
        caplog.clear()
        return found

    assert told() == []
    trouble.why = "one"
    assert told() == ["the controller cannot sweep"]
    now = 59.0
    assert told() == []
    trouble.why = "another"
    assert told() == ["the controller cannot sweep"]
    now = 59.0 + 60
    assert told() == ["the controller cannot sweep"]
    trouble.why = ""
    assert told() == ["the controller can sweep again"]
    assert told() == []


def test_at_the_end_a_duty_that_fails_stops_no_other_and_each_is_preceded_by_a_sign_of_life(
        caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("fails")
        raise OSError("no disk")

    do_at_the_end({"write": fail, "end checks": lambda: done.append("checks")}, lambda: done.append("beat"))
    assert done == ["beat", "fails", "beat", "checks"]
    assert "the controller, which ends, cannot write" in caplog.text and "no disk" in caplog.text
