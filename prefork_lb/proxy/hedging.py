"""Hedged requests: a second server is asked when the first one takes unusually long, and the first answer counts.

After Dean and Barroso, "The Tail at Scale" (CACM 56, 2013): the second request goes out when the first has taken longer than
95 % of the pool's responses do, so that it costs little and cuts the tail. Only for what may be sent twice.
"""
from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from prefork_lb.errors import CapacityError, ClientGone, ResponseTimeout, UpstreamError
from prefork_lb.net.stream import Stream, StreamTimeout
from prefork_lb.proxy.attempt import Settings, begin, finish
from prefork_lb.proxy.inbound import HeadReader
from prefork_lb.proxy.outbound import EMPTY
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.wire.head import ResponseHead

_LEAST_CONNECT_S = 0.05

log = logging.getLogger("prefork_lb")


@dataclass(slots=True)
class _Side:
    """A server that was asked."""

    lease: Lease
    stream: Stream
    reader: HeadReader
    early: ResponseHead | None
    deadline: float


def may_hedge(pool: Pool, request: Request) -> bool:
    """Whether a request without a body may go to a second server meanwhile."""
    return pool.retries.hedge and len(pool.servers) > 1 and request.is_idempotent and not request.upgrade


def hedged(pool: Pool, lease: Lease, request: Request, block: bytes, settings: Settings) -> Reply:
    """Like `attempt`, for requests that `may_hedge`; the reply owns the lease of the server that answered first."""
    delay_s = min(pool.hedge_after_s, settings.timeouts.response)
    first = _begin(lease, request, block, settings)
    if not delay_s or first.early is not None:
        return _finish(first, request, settings)
    try:
        if settings.wait_any([first.stream], delay_s, request.downstream) is None:
            raise ClientGone("left while the server worked")
    except StreamTimeout:
        return _race(pool, first, request, block, settings, delay_s)
    return _finish(first, request, settings)


def _begin(lease: Lease, request: Request, block: bytes, settings: Settings) -> _Side:
    reader, early = begin(lease, request, block, EMPTY, False, settings)
    assert lease.stream is not None
    return _Side(lease, lease.stream, reader, early, settings.clock() + settings.timeouts.response)


def _finish(side: _Side, request: Request, settings: Settings) -> Reply:
    return finish(side.lease, request, side.reader, side.early, settings)


def _race(pool: Pool, first: _Side, request: Request, block: bytes, settings: Settings, delay_s: float) -> Reply:
    if not pool.budget.take():
        return _finish(first, request, settings)
    second: _Side | None = None
    try:
        timeouts = settings.timeouts
        # The first one's answer may come while this one connects.
        quick = replace(settings, timeouts=replace(timeouts, connect=min(timeouts.connect, max(delay_s, _LEAST_CONNECT_S))))
        with pool.lease(request, (first.lease.server,)) as lease:
            second = _begin(lease, request, block, quick)
            return _first_answer(pool, [first, second], request, settings)
    except CapacityError:
        pass  # there is nobody else to ask
    except UpstreamError as exc:
        if second is not None:
            raise
        _tell(pool, lease, request, exc)
    finally:
        pool.budget.give_back()
    return _finish(first, request, settings)


def _first_answer(pool: Pool, sides: list[_Side], request: Request, settings: Settings) -> Reply:
    while True:
        failure: UpstreamError
        try:
            side = _next_to_speak(sides, request, settings)
        except StreamTimeout:
            side = min(sides, key=lambda side: side.deadline)
            failure = ResponseTimeout(f"no response within {settings.timeouts.response:g} s")
        else:
            try:
                reply = _finish(side, request, settings)
            except UpstreamError as exc:
                failure = exc
            else:
                for other in sides:
                    if other is not side:
                        other.lease.abandon()
                return reply
        sides.remove(side)
        if not sides:
            raise failure
        side.lease.end_with(failure)
        _tell(pool, side.lease, request, failure)


def _next_to_speak(sides: list[_Side], request: Request, settings: Settings) -> _Side:
    for side in sides:
        if side.early is not None:
            return side
    left_s = max(0.0, min(side.deadline for side in sides) - settings.clock())
    stream = settings.wait_any([side.stream for side in sides], left_s, request.downstream)
    if stream is None:
        raise ClientGone("left while the servers worked")
    return next(side for side in sides if side.stream is stream)


def _tell(pool: Pool, lease: Lease, request: Request, failure: UpstreamError) -> None:
    log.warning("pool %s: server %s: hedged %s failed, the other one goes on: %s: %s", pool.name, lease.server.name,
                request.method.decode(), failure.phase, failure)
