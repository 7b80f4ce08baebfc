"""A response whose route limits its bandwidth: what its client gets when, and what becomes of its server."""
from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.errors import ClientGone, TruncatedBody
from prefork_lb.proxy.reply import Reply
from prefork_lb.routing.serving import Bandwidth
from prefork_lb.worker.pacing import send_paced
from tests.unit.green.running import DEADLINE_S
from tests.unit.worker.test_sending import BODY, CHUNKED, CLOSE, Exchange, in_chunks, length, unchunked

AT_ONCE = Bandwidth(1024, 10 * len(BODY))
SLOWLY = Bandwidth(1024)  # a body would take a quarter of an hour


@pytest.fixture
def exchanges() -> Iterator[list[Exchange]]:
    made: list[Exchange] = []
    yield made
    for exchange in made:
        exchange.close()


def paced(bandwidth: Bandwidth, chunked: bool = False) -> Callable[[Any, Reply, bytes], None]:
    return functools.partial(send_paced, bandwidth=bandwidth, chunked=chunked)


def now() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class Patient:
    """A client that takes everything at once, on virtual time, of a response that has been received."""

    def __init__(self, body: bytes) -> None:
        self._clock = ManualClock(1000.0)
        self.hub = SimpleNamespace(clock=self._clock, sleep=self._clock.advance, turns=SimpleNamespace(share=lambda: None))
        self.service = SimpleNamespace(times=SimpleNamespace(ahead=0))
        self.body_sent = 0
        self.got: list[tuple[float, bytes]] = []
        self.reply = SimpleNamespace(read=iter((body, b"")).__next__, is_received=True, trailers=[])

    def send(self, data: bytes) -> bool:
        self.got.append((self._clock() - 1000, data))
        return True

    def send_now(self, data: bytes) -> int:
        self.send(data)
        return len(data)


def test_the_head_comes_at_once_and_the_body_at_its_pace() -> None:
    client = Patient(BODY[:8192])
    send_paced(cast(Any, client), cast(Any, client.reply), b"head", Bandwidth(8192, 2048), chunked=False)
    # 2048 bytes and the first quarter of a second go at once, then comes a piece every eighth of a second.
    assert [(at, len(data)) for at, data in client.got] == [
        (0, 4), (0, 4096), (0.125, 1024), (0.25, 1024), (0.375, 1024), (0.5, 1024)]
    assert b"".join(data for _, data in client.got) == b"head" + BODY[:8192]
    assert client.body_sent == 8192


@pytest.mark.parametrize("ahead", [0, 50_000, 4 * len(BODY)])
@pytest.mark.parametrize(("head", "sent"), [(length(len(BODY)), BODY), (CLOSE, BODY), (CHUNKED, in_chunks(BODY) + b"0\r\n\r\n")],
                         ids=["length", "close", "chunked"])
def test_the_whole_body_arrives(exchanges: list[Exchange], head: bytes, sent: bytes, ahead: int) -> None:
    exchange = Exchange(head, ahead)
    exchanges.append(exchange)
    exchange.server_sends(sent)
    exchange.client_reads(now())
    exchange.pass_on(paced(AT_ONCE, head is CHUNKED))
    received = b"".join(unchunked(exchange.received)) if head is CHUNKED else exchange.received
    assert received == BODY and exchange.body_sent == len(BODY)
    assert exchange.released.is_set()


def test_the_server_is_given_back_long_before_the_client_has_all(exchanges: list[Exchange]) -> None:
    exchange = Exchange(length(len(BODY)), ahead=2 * len(BODY))
    exchanges.append(exchange)

    def leave() -> None:
        if exchange.released.wait(DEADLINE_S):
            exchange.client_end.close()

    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    exchange.server_sends(BODY)
    with pytest.raises(ClientGone):
        exchange.pass_on(paced(SLOWLY))
    leaving.join(DEADLINE_S)
    assert exchange.released.is_set()


def test_the_wait_for_the_next_piece_is_not_held_against_the_client(exchanges: list[Exchange]) -> None:
    """A piece comes every eighth of a second. The client's buffer holds them all, so it need not even read."""
    exchange = Exchange(length(640), ahead=10_000, idle_s=0.02)
    exchanges.append(exchange)
    exchange.server_sends(BODY[:640])
    exchange.client_reads(now())
    exchange.pass_on(paced(SLOWLY))
    assert exchange.received == BODY[:640]


def test_a_client_that_never_reads_is_given_up(exchanges: list[Exchange]) -> None:
    exchange = Exchange(length(len(BODY)), ahead=50_000, idle_s=0.1)
    exchanges.append(exchange)
    exchange.server_sends(BODY)
    with pytest.raises(ClientGone, match="took no byte"):
        exchange.pass_on(paced(AT_ONCE))


@pytest.mark.parametrize("head", [length(len(BODY) + 1), CHUNKED], ids=["length", "chunked"])
def test_what_came_before_a_break_arrives(exchanges: list[Exchange], head: bytes) -> None:
    exchange = Exchange(head, ahead=4 * len(BODY))
    exchanges.append(exchange)
    exchange.server_sends(in_chunks(BODY) if head is CHUNKED else BODY)
    exchange.client_reads(exchange.failed)
    with pytest.raises(TruncatedBody):
        exchange.pass_on(paced(AT_ONCE, head is CHUNKED))
    assert (b"".join(unchunked(exchange.received)) if head is CHUNKED else exchange.received) == BODY
    assert not exchange.released.is_set()
