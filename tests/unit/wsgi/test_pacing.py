"""A response under gunicorn's own workers whose route limits its bandwidth."""
from __future__ import annotations

from collections.abc import Iterator

from prefork_lb.clock import ManualClock
from prefork_lb.routing.serving import Bandwidth
from prefork_lb.wsgi.pacing import PacedBody


class Body(Iterator[bytes]):
    """The pieces of a body."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = iter(pieces)
        self.is_closed = False

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        self.is_closed = True


def test_pieces_come_when_their_time_has_come() -> None:
    clock = ManualClock(1000.0)
    body = PacedBody(Body(b"a" * 2048, b"b" * 1024), Bandwidth(4096), clock, clock.advance)
    found = [(clock() - 1000, piece) for piece in body]
    assert [(at, len(piece)) for at, piece in found] == [(0, 1024), (0.125, 512), (0.25, 512), (0.375, 512), (0.5, 512)]
    assert b"".join(piece for _, piece in found) == b"a" * 2048 + b"b" * 1024


def test_the_head_does_not_wait() -> None:
    """An empty piece makes gunicorn send it."""
    clock = ManualClock(1000.0)
    body = PacedBody(Body(b"", b"a"), Bandwidth(4096), clock, clock.advance)
    assert [next(body), next(body), clock()] == [b"", b"a", 1000.0]


def test_its_server_is_given_back_with_it() -> None:
    inner = Body()
    PacedBody(inner, Bandwidth(4096), ManualClock(), lambda _: None).close()
    assert inner.is_closed
