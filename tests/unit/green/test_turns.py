"""Greenlets that never wait: whom they let run, and when."""
from __future__ import annotations

import itertools
import time

from prefork_lb.green.hub import Hub
from prefork_lb.green.turns import TURN_S
from tests.unit.green.running import pair, run


class Ticking:
    """A clock that moves on by a tenth of a turn with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += TURN_S / 10
        return self.now


def test_a_greenlet_that_never_waits_lets_timers_and_events_come(hub: Hub) -> None:
    stream, other = pair(hub)
    seen: list[str] = []

    def listen() -> None:
        seen.append(stream.receive(9, 10).decode())

    def busy() -> None:
        hub.call_at(hub.now + 0.01, lambda: seen.append("timer"))
        hub.soon(listen)
        other.sendall(b"event")
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            hub.turns.share()

    run(hub, busy)
    assert sorted(seen) == ["event", "timer"]
    stream.close()


def test_data_that_is_always_there_lets_timers_come(hub: Hub) -> None:
    """A peer that sends as fast as it is read: no receive has to wait."""
    stream, other = pair(hub)
    other.sendall(bytes(10))
    seen: list[str] = []

    def busy() -> None:
        hub.call_at(hub.now + 0.01, lambda: seen.append("timer"))
        deadline = time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            other.sendall(stream.receive(1, 10))

    run(hub, busy)
    assert seen == ["timer"]
    stream.close()


def test_those_that_never_wait_have_equal_turns() -> None:
    hub = Hub(Ticking())
    turns: list[str] = []

    def busy(name: str) -> None:
        while len(turns) < 3000:
            turns.append(name)
            hub.turns.share()

    for name in "abc":
        hub.soon(lambda name=name: busy(name))  # type: ignore[misc]
    run(hub, lambda: busy("d"))
    hub.close()
    counts = [turns.count(name) for name in "abcd"]
    assert max(counts) - min(counts) <= 40, counts
    longest = max(len(list(group)) for _, group in itertools.groupby(turns))
    assert longest <= 12, "ten looks at the clock are a turn"


def test_a_job_behind_the_turns_waits_for_those_that_gave_way_before() -> None:
    hub = Hub(Ticking())
    order: list[str] = []

    def busy(name: str) -> None:
        for _ in range(25):  # two turns and a half
            hub.turns.share()
        order.append(name)

    def look() -> None:
        hub.turns.after(lambda: order.append("looked"))

    hub.soon(lambda: busy("a"))
    hub.soon(lambda: busy("b"))
    hub.call_at(hub.now + TURN_S / 2, look)
    run(hub, lambda: hub.sleep(10 * TURN_S))
    hub.call_at(hub.now, look)
    run(hub, lambda: hub.sleep(TURN_S))
    hub.close()
    assert sorted(order) == ["a", "b", "looked", "looked"]
    assert order.index("looked") < 3 and order[-1] == "looked", order


def test_events_without_end_leave_turns_their_half() -> None:
    clock = Ticking()
    hub = Hub(clock)
    stream, other = pair(hub)
    spent = {"events": 0, "turns": 0}

    def answer() -> None:  # each byte is answered with the next: an event every round
        while spent["turns"] < 1000:
            other.sendall(stream.receive(1, 1000))
            for _ in range(50):
                clock()
            spent["events"] += 50

    def busy() -> None:
        while spent["turns"] < 1000:
            spent["turns"] += 1
            hub.turns.share()

    hub.soon(answer)
    other.sendall(b"x")
    run(hub, busy)
    hub.close()
    assert 0 < spent["events"] < 20_000, spent
