"""A pipe between two connections: what goes through it, what the target does not take, and who is told of an end."""
from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from prefork_lb.green.hub import Hub
from prefork_lb.green.pipe import Pipe
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from tests.support.watched import Watching
from tests.unit.green.running import DEADLINE_S, pair, run

BODY = bytes(range(256)) * 2000
SHORT_S = 0.05


class Passage:
    """A server, a client, and the pipe between their connections."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self.pipe, self.has_left = hub, Pipe(), False
        self.source, self.server = pair(hub)
        self.target, self.client = pair(hub)

    def pass_on(self, most: int = len(BODY), timeout_s: float = DEADLINE_S) -> tuple[int, bytes] | None:
        watched = Watching(lambda: self.has_left)
        return run(self.hub, lambda: self.pipe.pass_on(self.source, self.target, timeout_s, watched, most))

    def is_empty(self) -> bool:
        """Whether nothing is left in the pipe for the next pair of connections."""
        other = type(self)(self.hub)
        other.pipe = self.pipe
        other.server.send(b"other")
        return other.pass_on() == (5, b"") and other.client.recv(100) == b"other"


@pytest.fixture
def passage(hub: Hub) -> Iterator[Passage]:
    made = Passage(hub)
    yield made
    made.pipe.close()


def read(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += client.recv(count - len(found))
    return found


def test_bytes_go_from_one_connection_to_the_other_in_order(passage: Passage) -> None:
    sender = threading.Thread(target=passage.server.sendall, args=(BODY,))
    sender.start()
    gone, got = 0, b""
    while gone < len(BODY):
        moved = passage.pass_on(len(BODY) - gone)
        assert moved is not None
        count, rest = moved
        gone += count
        got += read(passage.client, count - len(rest)) + rest
    sender.join()
    assert got == BODY


def test_no_more_than_the_limit_is_moved(passage: Passage) -> None:
    passage.server.send(b"0123456789")
    assert passage.pass_on(4) == (4, b"") and passage.client.recv(100) == b"0123"
    assert passage.pass_on() == (6, b"") and passage.client.recv(100) == b"456789"


def test_what_the_client_does_not_take_comes_back_and_the_pipe_is_empty(passage: Passage) -> None:
    filled = 0
    while sent := passage.target.send_now(bytes(100_000)):
        filled += sent
    passage.server.send(b"late")
    assert passage.pass_on() == (4, b"late")
    assert passage.is_empty()
    assert read(passage.client, filled) == bytes(filled)


def test_what_a_client_that_has_left_does_not_take_comes_back_and_the_pipe_is_empty(passage: Passage) -> None:
    passage.client.close()
    passage.server.send(b"late")
    assert passage.pass_on() == (4, b"late")
    assert passage.is_empty()


def test_the_wait_for_the_server_has_an_end(passage: Passage) -> None:
    with pytest.raises(StreamTimeout):
        passage.pass_on(timeout_s=SHORT_S)
    passage.hub.call_at(passage.hub.now + SHORT_S, lambda: passage.server.send(b"late"))
    assert passage.pass_on() == (4, b"")


def test_the_end_of_the_server_is_told(passage: Passage) -> None:
    passage.server.send(b"last")
    passage.server.close()
    assert passage.pass_on() == (4, b"")
    assert passage.pass_on() == (0, b"")


def test_a_connection_to_the_server_that_is_lost_is_told(passage: Passage) -> None:
    passage.hub.call_at(passage.hub.now + SHORT_S, passage.source.close)
    with pytest.raises(StreamClosed):
        passage.pass_on()


def test_a_client_that_leaves_ends_the_wait(passage: Passage) -> None:
    def leave() -> None:
        passage.has_left = True
        passage.source.break_off()

    passage.hub.call_at(passage.hub.now + SHORT_S, leave)
    assert passage.pass_on() is None


@pytest.mark.parametrize("refused", ["splice", "pipe2"])
def test_where_the_kernel_refuses_bytes_come_back_to_be_sent(
        passage: Passage, refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, refused, refuse)
    passage.server.send(b"copied")
    assert passage.pass_on() == (6, b"copied")
