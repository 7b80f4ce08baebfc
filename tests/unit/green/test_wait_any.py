"""Waits for the first of several streams."""
from __future__ import annotations

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import wait_any
from prefork_lb.net.stream import StreamTimeout
from tests.support.watched import Watching
from tests.unit.green.running import pair, run

NOBODY_LEAVES = Watching(lambda: False)


@pytest.mark.parametrize("answers", [0, 1])
def test_a_wait_for_several_is_not_over_while_the_event_of_one_is_behind_others(answers: int) -> None:
    """A round takes one event. The job of the first takes longer than the wait may last, and one more comes before ours."""
    clock = ManualClock()
    hub = Hub(clock)
    (busy, busy_end), (_, other_end) = pair(hub), pair(hub)
    pairs = [pair(hub) for _ in range(2)]
    run(hub, lambda: None)  # all are writable: events that have come
    hub.limit_round(1)

    def work() -> None:
        busy.receive(9, 60)
        clock.advance(10)

    def wait() -> object:
        busy_end.sendall(b"x")
        other_end.sendall(b"x")
        pairs[answers][1].sendall(b"x")
        return wait_any([stream for stream, _ in pairs], 3, NOBODY_LEAVES)

    hub.soon(work)
    assert run(hub, wait) is pairs[answers][0]
    hub.close()


def test_a_wait_for_several_that_are_silent_ends_in_time(hub: Hub) -> None:
    pairs = [pair(hub) for _ in range(2)]
    with pytest.raises(StreamTimeout):
        run(hub, lambda: wait_any([stream for stream, _ in pairs], 0.01, NOBODY_LEAVES))
