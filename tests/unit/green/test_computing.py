"""Functions beside the hub: other greenlets go on meanwhile, and few functions run at a time."""
from __future__ import annotations

import threading

import pytest

from prefork_lb.green.computing import Computing
from prefork_lb.green.hub import Hub
from tests.unit.green.running import run


def test_other_greenlets_go_on_meanwhile_and_two_functions_run_at_a_time(hub: Hub) -> None:
    computing, may_go, started = Computing(hub), threading.Event(), threading.Semaphore(0)
    under_way: list[int] = []
    most: list[int] = []
    results: list[bool] = []

    def function() -> bool:
        under_way.append(1)
        most.append(len(under_way))
        started.release()
        assert may_go.wait(10)
        under_way.pop()
        return True

    def job() -> None:
        results.append(computing.run(function))

    def other() -> None:
        for _ in range(6):
            hub.soon(job)
        while len(under_way) < 2:
            hub.sleep(0.001)  # the greenlets and this one run while the functions stand
        hub.sleep(0.1)  # for a third one, which must not begin
        may_go.set()
        while len(results) < 6:
            hub.sleep(0.001)

    run(hub, other)
    assert results == [True] * 6 and max(most) == 2


def test_what_a_function_raises_is_raised_where_it_was_asked_for(hub: Hub) -> None:
    def function() -> bool:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(hub, lambda: Computing(hub).run(function))
