"""Hedged requests: a second server is asked when the first one takes unusually long, and the first answer counts.

After Dean and Barroso, "The Tail at Scale" (CACM 56, 2013): the second request goes out when the first has taken longer than
95 % of the pool's responses do, so that it costs little and cuts the tail. Only for what may be sent twice.

A client must be no worse off than without the second request: a failure of the second server counts only if the first one fails
too, and what the first one says ends the attempt to connect to the second.
"""
from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, replace

from prefork_lb.errors import CapacityError, ClientGone, ResponseTimeout, Retry, UpstreamError
from prefork_lb.log_summary import summary
from prefork_lb.net.stream import Stream, StreamTimeout, Unneeded
from prefork_lb.proxy.attempt import AttemptSettings, begin, finish
from prefork_lb.proxy.inbound import HeadReader
from prefork_lb.proxy.outbound import EMPTY
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.upstream.lease import Lease
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server
from prefork_lb.wire.head import ResponseHead


@dataclass(slots=True)
class _Side:
    """One of the two servers, and the request that it was sent."""

    lease: Lease
    stream: Stream
    reader: HeadReader
    early: ResponseHead | None
    deadline: float


def may_hedge(pool: Pool, request: Request) -> bool:
    """Whether a request without a body may go to a second server meanwhile.

    Not one of a session: at another server it is a stranger, whose answer may come first.
    """
    has_session = request.session is not None and request.session.server is not None
    return pool.retries.hedge and len(pool.servers) > 1 and request.is_idempotent and not request.upgrade and not has_session


def hedged(pool: Pool, lease: Lease, request: Request, block: bytes, settings: AttemptSettings, failed: list[Server]) -> Reply:
    """Like `attempt`, for requests that `may_hedge`; the reply owns the lease of the server that answered first.

    Servers that failed are added to `failed`, but for the one that the reply is from. When it raises UpstreamError, that is the
    failure of the last one, or of the lease's server when there is none.
    """
    delay_s = min(pool.hedge_after_s, settings.timeouts.response)
    first = _begin(lease, request, block, settings)
    if not delay_s or first.early is not None:
        return _finish(first, request, settings)
    try:
        if settings.wait_any([first.stream], delay_s, request.downstream) is None:
            raise ClientGone("left while the server worked")
    except StreamTimeout:
        return _Race(pool, request, settings, failed).run(first, block)
    return _finish(first, request, settings)


class _Race:
    """An exchange whose first server takes unusually long, so that a second one is asked."""

    def __init__(self, pool: Pool, request: Request, settings: AttemptSettings, failed: list[Server]) -> None:
        self._pool = pool
        self._request = request
        self._settings = settings
        self._failed = failed
        self._held: Reply | None = None  # an answer with a status that is a failure, while the other server may have a better one

    def run(self, first: _Side, block: bytes) -> Reply:
        """The answer of one of the two."""
        pool = self._pool
        if not pool.budget.take(is_hedge=True):
            return self._finish_alone(first)
        try:
            with pool.lease(self._request, (first.lease.server,), session=self._request.session) as lease:
                self._request.attempts += 1
                self._request.retries += 1
                second = self._ask_second(lease, block, first.stream)
                if second is not None:
                    return self._first_answer([first, second])
        except CapacityError:
            pass  # there is no other server to ask
        finally:
            pool.budget.give_back()
        return self._finish_alone(first)

    def _ask_second(self, lease: Lease, block: bytes, first: Stream) -> _Side | None:
        """Send the request to the second server. None when that failed, or the first one spoke before: it goes on alone."""
        settings = replace(self._settings, dial=functools.partial(self._settings.dial, unless=first))
        try:
            return _begin(lease, self._request, block, settings)
        except Unneeded:
            lease.abandon()
        except UpstreamError as exc:
            self._note_failure(lease, exc)
        return None

    def _first_answer(self, sides: list[_Side]) -> Reply:
        while True:
            side, outcome = self._next_outcome(sides)
            sides.remove(side)
            if isinstance(outcome, Reply):
                self._drop_held()
                if not sides or outcome.status not in self._pool.retries.statuses:
                    for other in sides:
                        other.lease.abandon()
                    return outcome
                self._held = outcome
                continue
            if sides or self._held is not None:
                self._note_failure(side.lease, outcome)
            if sides:
                continue
            if self._held is not None:
                return self._held
            self._failed.append(side.lease.server)
            raise outcome

    def _next_outcome(self, sides: list[_Side]) -> tuple[_Side, Reply | UpstreamError]:
        """The next server that answers or fails, and what came of it. Raises ClientGone."""
        settings = self._settings
        try:
            side = self._next_to_speak(sides)
        except StreamTimeout:
            side = min(sides, key=lambda side: side.deadline)
            return side, ResponseTimeout(f"no response within {settings.timeouts.response:g} s")
        try:
            return side, _finish(side, self._request, settings)
        except UpstreamError as exc:
            return side, exc

    def _next_to_speak(self, sides: list[_Side]) -> _Side:
        for side in sides:
            if side.early is not None:
                return side
        left_s = max(0.0, min(side.deadline for side in sides) - self._settings.clock())
        stream = self._settings.wait_any([side.stream for side in sides], left_s, self._request.downstream)
        if stream is None:
            raise ClientGone("left while the servers worked")
        return next(side for side in sides if side.stream is stream)

    def _finish_alone(self, first: _Side) -> Reply:
        try:
            return _finish(first, self._request, self._settings)
        except UpstreamError:
            self._failed.append(first.lease.server)
            raise

    def _drop_held(self) -> None:
        if self._held is not None:
            self._failed.append(self._held.served_by)
            self._held.close()
            self._held = None

    def _note_failure(self, lease: Lease, failure: UpstreamError) -> None:
        """One of the two has failed, and the other one goes on or has answered."""
        lease.end_with(failure)
        if failure.retry is not Retry.IF_REUSED:  # a kept-alive connection that had gone stale says nothing about its server
            self._failed.append(lease.server)
        self._request.note_failure(lease.server, failure.phase, str(failure))
        pool, server = self._pool.name, lease.server.name
        summary.tell(logging.WARNING, (pool, server, "hedged", failure.phase),
                     "pool %s: server %s: hedged %s failed, the other one goes on: %s: %s",
                     pool, server, self._request.method.decode("latin-1"), failure.phase, failure)


def _begin(lease: Lease, request: Request, block: bytes, settings: AttemptSettings) -> _Side:
    reader, early = begin(lease, request, block, EMPTY, False, settings)
    assert lease.stream is not None
    return _Side(lease, lease.stream, reader, early, settings.clock() + settings.timeouts.response)


def _finish(side: _Side, request: Request, settings: AttemptSettings) -> Reply:
    return finish(side.lease, request, side.reader, side.early, settings)
