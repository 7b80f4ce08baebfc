"""Idle connections: few, young, and only those that are still good."""
from __future__ import annotations

import logging
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.upstream.idle_connections import IdleConnections
from tests.unit.upstream.parts import NotedStream


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


def filled(clock: ManualClock, count: int, most: int = 4, every_s: float = 1.0) -> tuple[IdleConnections, list[NotedStream]]:
    idle = IdleConnections(most, 10.0, clock)
    streams = [NotedStream() for _ in range(count)]
    for stream in streams:
        idle.put(stream)
        clock.advance(every_s)
    return idle, streams


def test_the_connection_used_last_is_used_next(clock: ManualClock) -> None:
    idle, (first, second, third) = filled(clock, 3)
    assert [idle.take(), idle.take(), idle.take(), idle.take()] == [third, second, first, None]
    assert [stream.closed for stream in (first, second, third)] == [0, 0, 0]


def test_above_the_bound_the_oldest_is_closed(clock: ManualClock) -> None:
    idle, streams = filled(clock, 6, most=4, every_s=0.1)
    assert len(idle) == 4
    assert [stream.closed for stream in streams] == [1, 1, 0, 0, 0, 0]


def test_with_a_bound_of_none_all_are_closed(clock: ManualClock) -> None:
    idle, (stream,) = filled(clock, 1, most=0)
    assert stream.closed == 1 and len(idle) == 0 and idle.take() is None


def test_a_connection_that_is_not_quiet_is_closed_and_the_next_one_taken(clock: ManualClock) -> None:
    """Readable while idle: closed by the server, or out of step."""
    idle, (good, stale, worse) = filled(clock, 3)
    stale.quiet = worse.quiet = False
    assert idle.take() is good
    assert (good.closed, stale.closed, worse.closed) == (0, 1, 1)
    assert len(idle) == 0


def test_what_a_server_says_without_a_request_is_told_and_its_end_is_not(
    clock: ManualClock, caplog: pytest.LogCaptureFixture,
) -> None:
    idle = IdleConnections(4, 10.0, clock, "app.test:80")
    late, ended = NotedStream(quiet=False), NotedStream(quiet=False)
    late.unasked = b"HTTP/1.1 200 OK\r\n"
    with caplog.at_level(logging.WARNING, "prefork_lb"):
        idle.put(ended)
        assert idle.take() is None and caplog.text == ""
        idle.put(late)
        assert idle.take() is None
    assert "server app.test:80 sent something on a connection without a request" in caplog.text
    assert (late.closed, ended.closed) == (1, 1)


def test_a_connection_may_idle_for_its_time_and_no_longer(clock: ManualClock) -> None:
    idle, (stream,) = filled(clock, 1, every_s=10.0)
    assert idle.take() is stream
    idle.put(stream)
    clock.advance(10.001)
    assert idle.take() is None
    assert stream.closed == 1


def test_expiring_closes_the_old_ones_only(clock: ManualClock) -> None:
    idle, (first, second, third) = filled(clock, 3, every_s=4.0)  # now 12, 8 and 4 s old
    idle.expire()
    assert [stream.closed for stream in (first, second, third)] == [1, 0, 0]
    clock.advance(3.0)
    idle.expire()
    assert [stream.closed for stream in (first, second, third)] == [1, 1, 0]
    assert idle.take() is third


def test_close_closes_all(clock: ManualClock) -> None:
    idle, streams = filled(clock, 3)
    idle.close()
    idle.close()
    assert [stream.closed for stream in streams] == [1, 1, 1] and len(idle) == 0


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="sys.settrace does not report every instruction from Python 3.12 on")
def test_a_request_may_take_the_last_connection_at_any_instruction_of_expire(clock: ManualClock) -> None:
    """The housekeeping ended with an IndexError when that happened between its look and its second look."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal executed
        if frame.f_code is not IdleConnections.expire.__code__:
            return None
        frame.f_trace_opcodes = True
        executed += event == "opcode"
        if event == "opcode" and executed == taken_at:
            idle.take()
        return trace

    taken_at = executed = 0
    while executed == taken_at:
        taken_at, executed = taken_at + 1, 0
        idle, _ = filled(clock, 1)
        sys.settrace(trace)
        try:
            idle.expire()
        finally:
            sys.settrace(None)
        executed = min(executed, taken_at)
    assert taken_at > 10, "its instructions were seen"


def test_threads_that_take_put_and_expire_at_once_lose_and_double_nothing() -> None:
    """The housekeeping looks through them while requests use them."""
    clock = ManualClock()
    idle = IdleConnections(3, 0.5, clock)
    failures: list[BaseException] = []
    over = threading.Event()
    in_use: set[int] = set()

    def use() -> None:
        try:
            while not over.is_set():
                stream = idle.take() or NotedStream()
                assert isinstance(stream, NotedStream)
                assert not stream.closed and id(stream) not in in_use
                in_use.add(id(stream))
                in_use.remove(id(stream))
                idle.put(stream)
        except BaseException as exc:
            failures.append(exc)

    def look_after() -> None:
        try:
            while not over.is_set():
                clock.advance(0.3)
                idle.expire()
        except BaseException as exc:
            failures.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=target) for target in (use, use, look_after, look_after)]
    try:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and not failures:
            over.wait(0.01)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert len(idle) <= 3
