"""The compiled rounds and streams: arguments, errors, and what is left behind. For the rest, tests/unit/green runs over them."""
from __future__ import annotations

import ctypes
import gc
import operator
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator
from functools import partial

import pytest
from greenlet import getcurrent

from prefork_lb.green.hub import Hub
from prefork_lb.green.rounds import PythonRounds
from prefork_lb.green.streams import GreenStream
from prefork_lb.native.loader import native_loop
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from tests.support.watched import Watching
from tests.unit.green.running import pair, run

LOOP = native_loop()
NOBODY_LEAVES = Watching(lambda: False)
pytestmark = pytest.mark.skipif(LOOP is None, reason="prefork_lb.native.loop was not built: it takes a C compiler")


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.close()


def test_the_compiled_operations_are_in_use(hub: Hub) -> None:
    assert LOOP is not None
    assert issubclass(GreenStream, LOOP.Channel) and GreenStream.send is LOOP.Channel.send  # type: ignore[attr-defined]
    assert not isinstance(hub._rounds, PythonRounds)


def test_wrong_arguments(hub: Hub) -> None:
    assert LOOP is not None
    stream, theirs = pair(hub)
    for arguments in ((), (b"",), ("text", 1.0), (1, 1.0)):
        with pytest.raises(TypeError):
            stream.send(*arguments)  # type: ignore[arg-type]
    for limit in (None, "1", 1.5):
        with pytest.raises(TypeError):
            stream.receive_now(limit)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        stream.receive_now(-1)
    for arguments in ((), (1, 1.0), (1, "1", NOBODY_LEAVES), ("1", 1.0, NOBODY_LEAVES)):
        with pytest.raises(TypeError):
            stream.receive_or(*arguments)  # type: ignore[arg-type]
    theirs.send(b"there")
    for limit in (-1, -5):
        with pytest.raises(ValueError, match="negative"):
            run(hub, lambda limit=limit: stream.receive_or(limit, 1.0, NOBODY_LEAVES))  # type: ignore[misc]
    assert run(hub, lambda: stream.receive_or(9, 1.0, NOBODY_LEAVES)) == b"there"
    with pytest.raises(AttributeError):
        stream.receive_or(1, 1.0, object())  # type: ignore[arg-type]
    for arguments in ((), (1, {}), (1, {}, []), ("1", {}, {})):
        with pytest.raises(TypeError):
            LOOP.Rounds(*arguments)  # type: ignore[arg-type]
    for arguments in ((), (StreamClosed, StreamTimeout), (1, StreamTimeout, getcurrent), (StreamClosed, StreamTimeout, 1)):
        with pytest.raises(TypeError):
            LOOP.use(*arguments)  # type: ignore[arg-type]
    theirs.close()
    stream.close()


def test_wrong_arguments_of_a_round() -> None:
    assert LOOP is not None
    with select.epoll() as epoll:
        rounds = LOOP.Rounds(epoll.fileno(), {}, {})
        for arguments in ((), (0.0,), ("0", 1), (0.0, "1")):
            with pytest.raises(TypeError):
                rounds.collect(*arguments)  # type: ignore[arg-type]
        for most in (0, -1, 1 << 40):
            with pytest.raises(ValueError, match="number"):
                rounds.collect(0.0, most)
    with pytest.raises(OSError, match="descriptor"):
        rounds.collect(0.0, 1)


def test_what_a_watcher_raises_ends_the_round() -> None:
    assert LOOP is not None
    calls: list[str] = []

    def fail() -> None:
        calls.append("failed")
        raise LookupError("a watcher")

    mine, theirs = socket.socketpair()
    with select.epoll() as epoll, mine, theirs:
        epoll.register(mine.fileno(), select.EPOLLIN)
        theirs.send(b"x")
        rounds = LOOP.Rounds(epoll.fileno(), {}, {mine.fileno(): fail})
        assert rounds.collect(10.0, 8) == 1
        with pytest.raises(LookupError, match="a watcher"):
            rounds.deliver()
        rounds.deliver()  # nothing is told twice
        assert calls == ["failed"]
        assert LOOP.Rounds(epoll.fileno(), {mine.fileno(): object()}, {}).collect(10.0, 8) == 1
        wrong = LOOP.Rounds(epoll.fileno(), {mine.fileno(): object()}, {})
        wrong.collect(10.0, 8)
        with pytest.raises(TypeError, match="Channel"):
            wrong.deliver()


def test_a_signal_is_handled_before_a_round_though_no_instruction_of_python_came_between(hub: Hub) -> None:
    """So it is where translated code ran. The round might wait for ever then."""
    order: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: order.append("handled"))
    try:
        raised = partial(ctypes.CDLL(None)["raise"], int(signal.SIGUSR1))
        deque(map(operator.call, [raised, partial(hub._rounds.collect, 0.0, 1), partial(order.append, "collected")]), maxlen=0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert order == ["handled", "collected"]


@pytest.mark.parametrize("size", [1, 60_000, 70_000, 300_000])
def test_pieces_of_any_size_come_whole(hub: Hub, size: int) -> None:
    stream, theirs = pair(hub)
    with theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        theirs.setblocking(False)
        sent = theirs.send(bytes(range(256)) * (size // 256) + b"y" * (size % 256))
        got = b""

        def receive() -> None:
            nonlocal got
            while len(got) < sent:
                got += stream.receive_or(size, 10.0, NOBODY_LEAVES) or b""

        run(hub, receive)
        assert got == (bytes(range(256)) * (size // 256) + b"y" * (size % 256))[:sent]
    stream.close()


def test_nothing_is_left_behind(hub: Hub) -> None:
    stream, theirs = pair(hub)

    def work() -> None:
        for _ in range(500):
            stream.send(b"ping", 1.0)
            theirs.recv(10)
            theirs.send(b"pong")
            assert stream.receive_or(100, 10.0, NOBODY_LEAVES) == b"pong"
            assert stream.receive_now(100) is None and stream.is_quiet()

    run(hub, work)
    gc.collect()
    before = sys.getallocatedblocks()
    run(hub, work)
    gc.collect()
    assert sys.getallocatedblocks() - before < 200
    with pytest.raises(StreamTimeout):
        run(hub, lambda: stream.receive_or(100, 0.0, NOBODY_LEAVES))
    theirs.close()
    stream.close()


def test_streams_that_were_dropped_are_collected(hub: Hub) -> None:
    class Owner:
        stream: GreenStream

        def on_events(self, events: int) -> None: ...

        def on_deadline(self) -> None: ...

    def make() -> None:
        for _ in range(50):
            stream, theirs = pair(hub)
            owner = Owner()
            stream.owner, owner.stream = owner, stream  # a cycle through the channel
            hub.forget(stream)
            theirs.close()
            stream.connected.close()

    make()
    gc.collect()
    before = sum(isinstance(one, GreenStream) for one in gc.get_objects())
    make()
    gc.collect()
    assert sum(isinstance(one, GreenStream) for one in gc.get_objects()) <= before
