"""Whether a process beside the controller runs when it should."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.config.admin import AdminConfig
from prefork_lb.controller.supervisor import Supervisor
from prefork_lb.shared.segment import Segment
from tests.support.waiting import wait_until

FIRST, SECOND = AdminConfig(bind="127.0.0.1:9900"), AdminConfig(bind="127.0.0.1:9901")


class Runs:
    """A stand-in for the process, which notes each start and then waits, or ends at once."""

    def __init__(self, segment: Segment, folder: Path) -> None:
        self.starts_file, self.ends_file, self.clock = folder / "starts", folder / "ends", ManualClock()
        script = ("import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n');"
                  "time.sleep(0 if os.path.exists(sys.argv[2]) else 60)")
        command = (sys.executable, "-c", script, str(self.starts_file), str(self.ends_file))
        self.keeper = Supervisor(segment, "", "the process", command, self.clock)

    @property
    def starts(self) -> int:
        return len(self.starts_file.read_text().splitlines()) if self.starts_file.exists() else 0

    def wait_for(self, starts: int) -> None:
        def look() -> bool:
            self.keeper.look()
            return self.starts == starts

        wait_until(look, f"{starts} starts", 20, every=0.02)


@pytest.fixture
def runs(segment: Segment, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(segment, tmp_path)
    yield runs
    runs.keeper.close()


def test_it_runs_while_the_configuration_has_the_section(runs: Runs) -> None:
    runs.keeper.look()
    assert runs.starts == 0
    runs.keeper.use(FIRST)
    runs.wait_for(1)
    runs.keeper.use(SECOND)
    runs.wait_for(2)
    runs.keeper.use(None)
    runs.clock.advance(1)
    for _ in range(20):
        runs.keeper.look()
    assert runs.starts == 2


def test_one_that_ends_is_started_again_after_longer_and_longer_waits(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    runs.ends_file.touch()
    runs.keeper.use(FIRST)
    runs.wait_for(2)  # again at once
    for starts, wait_s in ((2, 1), (3, 3), (4, 7)):
        expected = f"ended with exit code 0; it is started again in {wait_s} s"

        def is_told(expected: str = expected) -> bool:
            runs.keeper.look()
            return expected in caplog.text

        wait_until(is_told, f"{expected}\n{caplog.text}", 20, every=0.02)
        runs.clock.advance(wait_s - 0.1)
        runs.keeper.look()
        assert runs.starts == starts
        runs.clock.advance(0.1)
        runs.wait_for(starts + 1)
