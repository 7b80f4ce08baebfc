"""The hub: timers, jobs, blocking calls, descriptors whose numbers come again."""
from __future__ import annotations

import logging
import threading
import time

import pytest
from greenlet import getcurrent

from prefork_lb.clock import ManualClock
from prefork_lb.green.channel import NEVER, READ
from prefork_lb.green.event import OneShotEvent
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import GreenStream
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from tests.unit.green.running import pair, run


def test_timers_come_in_order_and_a_cancelled_one_does_not(hub: Hub) -> None:
    seen: list[str] = []
    hub.call_at(hub.now + 0.03, lambda: seen.append("late"))
    hub.call_at(hub.now + 0.01, lambda: seen.append("early"))
    hub.call_at(hub.now + 0.02, lambda: seen.append("never")).cancel()
    hub.call_at(hub.now + 0.04, hub.stop)
    hub.run()
    assert seen == ["early", "late"]


def test_sleeping_takes_the_time_it_should(hub: Hub) -> None:
    begin = time.monotonic()
    run(hub, lambda: hub.sleep(0.05))
    assert time.monotonic() - begin >= 0.05


def test_a_task_that_fails_is_called_again(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def task() -> None:
        calls.append(1)
        if len(calls) == 3:
            hub.stop()
        raise LookupError("on purpose")

    hub.every(0.005, task)
    with caplog.at_level(logging.ERROR, "prefork_lb"):
        hub.run()
    assert len(calls) == 3 and "on purpose" in caplog.text


def test_a_job_that_fails_is_logged_and_its_greenlet_used_again(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    greenlets: list[object] = []

    def failing() -> None:
        greenlets.append(getcurrent())
        raise LookupError("on purpose")

    with caplog.at_level(logging.ERROR, "prefork_lb"):
        run(hub, lambda: hub.soon(failing))
        hub.soon(failing)
        run(hub, lambda: hub.sleep(0.001))
    assert len(greenlets) == 2 and caplog.text.count("LookupError: on purpose") == 2


def test_a_wait_is_not_over_while_its_event_is_behind_others() -> None:
    """A round takes one event, and the first job takes longer than the others' waits may last."""
    clock = ManualClock()
    hub = Hub(clock)
    hub.limit_round(1)
    pairs = [pair(hub) for _ in range(4)]
    seen: list[str] = []

    def receive(stream: GreenStream) -> None:
        try:
            seen.append(stream.receive(9, 3).decode())
        except StreamTimeout:
            seen.append("late")
        clock.advance(10)
        if len(seen) == len(pairs):
            hub.stop()

    for stream, other in pairs:
        hub.soon(lambda stream=stream: receive(stream))  # type: ignore[misc]
        other.sendall(b"x")
    hub.run()
    hub.close()
    assert seen == ["x"] * 4


def test_a_wait_is_not_over_because_the_process_was_stopped() -> None:
    """The hub has looked for events; before it reads the clock the process stands still for long, and the event comes."""
    stood_still_s = 0.0
    looks: list[str] = []  # at the clock, once the stop is due: before the hub looks for events, and after it

    def clock() -> float:
        nonlocal stood_still_s
        if looks and looks.pop() == "after":
            other.sendall(b"x")
            stood_still_s = 6
        return time.monotonic() + stood_still_s

    hub = Hub(clock)
    stream, other = pair(hub)
    hub.call_at(hub.now + 0.01, lambda: looks.extend(["after", "before"]))
    hub.call_at(hub.now + 0.03, lambda: None)
    assert run(hub, lambda: stream.receive(9, 5)) == b"x"
    assert stood_still_s
    hub.close()


def test_an_idle_connection_is_not_late_while_its_event_is_behind_others() -> None:
    clock = ManualClock()
    hub = Hub(clock)
    hub.limit_round(1)
    (first, first_end), (second, second_end) = pair(hub), pair(hub)
    seen: list[str] = []

    class Owner:
        def __init__(self, name: str) -> None:
            self._name = name

        def on_events(self, events: int) -> None:
            seen.append(self._name)
            clock.advance(10)
            if len(seen) == 2:
                hub.stop()

        def on_deadline(self) -> None:
            seen.append(f"{self._name} is late")
            hub.stop()

    first.owner, second.owner = Owner("first"), Owner("second")
    hub.arm(second, 3)
    first_end.send(b"x")
    second_end.send(b"x")
    hub.run()
    hub.close()
    assert seen == ["first", "second"]


def test_a_wait_is_over_though_something_is_there_that_makes_no_event(hub: Hub) -> None:
    """What was looked at and left in the socket is no news."""
    stream, other = pair(hub)
    other.sendall(b"x")
    run(hub, lambda: hub.sleep(0.001))
    assert stream.ready & READ
    assert not run(hub, lambda: stream.wait_readable(hub.now + 0.02))


def test_system_exit_in_a_job_ends_the_loop(hub: Hub) -> None:
    """gunicorn's SIGABRT raises it in whichever greenlet runs."""
    def leaving() -> None:
        raise SystemExit(1)

    hub.soon(leaving)
    with pytest.raises(SystemExit):
        hub.run()


def test_another_thread_can_wake_the_hub(hub: Hub) -> None:
    seen: list[int] = []

    def wake() -> None:
        for number in range(100):
            hub.wake(lambda number=number: seen.append(number))  # type: ignore[misc]
        hub.wake(hub.stop)

    thread = threading.Thread(target=wake)
    thread.start()
    hub.run()
    thread.join(10)
    assert seen == list(range(100))


def test_a_gate_holds_until_it_is_opened_and_not_after(hub: Hub) -> None:
    gate, seen = OneShotEvent(hub), []

    def opener() -> None:
        hub.sleep(0.02)
        seen.append("opened")
        gate.set()

    def waiter() -> list[str]:
        hub.soon(opener)
        gate.wait()
        gate.wait()
        return [*seen, "passed"]

    assert run(hub, waiter) == ["opened", "passed"]


def test_a_closed_descriptors_number_comes_back_only_after_its_events(hub: Hub) -> None:
    """Both ends of two pairs become ready in one round; the first one's job closes the second and opens another."""
    one, other_end = pair(hub)
    two, second_end = pair(hub)
    number = two.descriptor
    seen: list[object] = []

    class Owner:
        def on_events(self, events: int) -> None:
            if two.descriptor >= 0:
                two.close()
                fresh, fresh_end = pair(hub)
                seen.extend((fresh, fresh_end, fresh.descriptor))
                hub.call_at(hub.now + 0.02, hub.stop)

        def on_deadline(self) -> None:
            raise AssertionError("no deadline was set")

    one.owner = two.owner = Owner()
    other_end.send(b"x")
    second_end.send(b"x")
    hub.run()
    fresh = seen[0]
    assert isinstance(fresh, GreenStream) and seen[2] != number, "the number was still taken when the new socket was made"
    assert not fresh.has_input(), "and no event of the closed one reached the new one"


def test_deadlines_move_with_each_wait(hub: Hub) -> None:
    stream, peer = pair(hub)

    def use() -> str:
        hub.soon(lambda: peer.send(b"a"))  # while the first one waits
        assert stream.receive(10, 0.5) == b"a"
        begin = hub.now
        try:
            stream.receive(10, 0.7)
        except StreamTimeout:
            return "late" if hub.now - begin >= 0.7 else "too early: the first wait's deadline ended the second"
        return "data"

    assert run(hub, use) == "late"


def test_an_earlier_deadline_than_the_last_one_holds(hub: Hub) -> None:
    stream, peer = pair(hub)

    def use() -> float:
        peer.send(b"a")
        assert stream.receive(10, 60) == b"a"
        begin = hub.now
        with pytest.raises(StreamTimeout):
            stream.receive(10, 0.03)
        return hub.now - begin

    assert run(hub, use) < 60


def test_entries_of_closed_channels_do_not_pile_up(hub: Hub) -> None:
    """A connection a request arms a deadline of a minute each time."""
    def use() -> int:
        for _ in range(3000):
            stream, peer = pair(hub)
            hub.arm(stream, hub.now + 60)
            stream.close()
            peer.close()
        return hub.waiting_timers

    assert run(hub, use) < 2500


def test_closing_wakes_who_waits(hub: Hub) -> None:
    stream, _peer = pair(hub)
    hub.call_at(hub.now + 0.02, stream.close)
    with pytest.raises(StreamClosed):
        run(hub, lambda: stream.receive(10, 10))


def test_a_channel_without_a_deadline_waits_for_ever(hub: Hub) -> None:
    stream, peer = pair(hub)
    hub.call_at(hub.now + 0.05, lambda: peer.send(b"x"))
    assert run(hub, lambda: stream.wait_readable(NEVER))
