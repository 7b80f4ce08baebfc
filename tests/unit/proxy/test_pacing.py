"""How fast the body of a response goes where its route limits its bandwidth."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.proxy.pacing import Pace
from prefork_lb.routing.serving import Bandwidth

START = 1000.1  # no round number: sums of binary fractions are not exact


def sends(pace: Pace, clock: ManualClock, total: int, late_s: float = 0.0) -> Iterator[tuple[float, int]]:
    """When how much has gone, of a body that is sent as the pace says; `late_s`: each wait takes so much longer."""
    gone = 0
    while gone < total:
        count = pace.most(total - gone, clock())
        if count:
            pace.spend(count)
            gone += count
            yield clock() - START, gone
        else:
            clock.advance(pace.wait_s(total - gone) + late_s)


@pytest.mark.parametrize("after", [0, 1000, 1_000_000])
@pytest.mark.parametrize("late_s", [0.0, 0.1], ids=["in time", "late"])
@pytest.mark.parametrize("per_second", [1024, 65536, 10_000_000])
def test_it_is_never_faster_than_its_rate_and_not_slower(per_second: int, late_s: float, after: int) -> None:
    clock = ManualClock(START)
    total = after + 10 * per_second
    found = list(sends(Pace(Bandwidth(per_second, after), START), clock, total, late_s))
    assert all(gone <= after + per_second * (seconds + 0.25) + 1 for seconds, gone in found)
    assert found[-1][0] <= 10 + late_s, "the time of late sends is lost"
    assert len(found) <= 90, "a send is worth a wake-up"


def test_what_is_short_goes_at_once() -> None:
    pace = Pace(Bandwidth(1024), START)
    assert pace.most(256, START) == 256


def test_a_pause_is_not_made_up_for() -> None:
    """The server was silent for a minute: the next minute's worth does not go in a burst."""
    pace = Pace(Bandwidth(1024), START)
    pace.spend(pace.most(5000, START))
    assert pace.most(5000, START + 60) == 256


def test_what_the_client_did_not_take_is_not_counted() -> None:
    pace = Pace(Bandwidth(1024), START)
    assert pace.most(5000, START) == 256
    pace.spend(56)
    assert pace.most(5000, START) == 200
