"""A route's limit of a rate: how exact it is, and what a client is told."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.errors import TooManyRequests
from prefork_lb.routing.limit_keys import limit_key_finder
from prefork_lb.routing.template import Facts
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.making import attach_or_create, remove_segment
from prefork_lb.shared.offsets import Layout
from prefork_lb.shared.rate_table import LimitKeys, RateTable
from prefork_lb.upstream.rate_limit import RateLimit
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead
from tests.unit.shared.processes import Master

MakeLimit = Callable[[float, int], RateLimit]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(clock: ManualClock) -> Iterator[MakeLimit]:
    master = Master()
    ledger = Ledger(attach_or_create(master.pid, Layout(4, 8, 8, rates=8)))
    table, keys = RateTable(ledger.segment, ledger), LimitKeys(b"s" * 32, "a route")
    yield lambda per_second, burst: RateLimit(table, keys, limit_key_finder("header:X-Key"), per_second, burst, clock)
    remove_segment(master.pid)
    master.kill()


def passes(limit: RateLimit) -> bool:
    try:
        limit.of_key(b"a key")()
    except TooManyRequests:
        return False
    return True


@pytest.mark.parametrize("per_second", [0.7, 9, 70_000, 300_000])
def test_what_is_let_through_is_exact_within_a_percent(make: MakeLimit, clock: ManualClock, per_second: float) -> None:
    limit, burst, found = make(per_second, 20), 20, 0
    for _ in range(10_000):  # five times the rate
        found += passes(limit)
        clock.advance(0.2 / per_second)
    assert found == pytest.approx(10_000 * 0.2 + burst, rel=0.01)


def test_the_client_is_told_when_to_come_again(make: MakeLimit, clock: ManualClock) -> None:
    limit = make(0.1, 3)
    assert [passes(limit) for _ in range(4)] == [True, True, True, False]
    clock.advance(4)
    with pytest.raises(TooManyRequests) as caught:
        limit.of_key(b"a key")()
    assert caught.value.retry_after_s == 6
    assert caught.value.fields == [(b"RateLimit-Policy", b'"route";q=3;w=30'), (b"RateLimit", b'"route";r=0;t=6')]
    clock.advance(6)
    assert passes(limit)


def test_requests_of_one_key_share_its_rate_and_those_without_a_key_are_not_limited(make: MakeLimit) -> None:
    limit = make(0.1, 2)

    def passes_with(key: bytes) -> bool:
        head = RequestHead(b"GET", b"/", 1, [(b"X-Key", key)])
        take = limit.of_request(Facts(head, b"/", "h", (), ClientInfo("192.0.2.1", b"http", 80, False), lambda _: False))
        try:
            return take is None or take() is None
        except TooManyRequests:
            return False

    for key in (b"a", b"b", b"k" * 64, b"k" * 65, b"k" * 5000):  # long ones are not kept
        assert [passes_with(key) for _ in range(3)] == [True, True, False]
    assert [passes_with(b"") for _ in range(3)] == [True] * 3
