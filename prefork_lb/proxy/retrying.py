"""What follows a failed attempt: another one at another server, where the rules allow it, or the failure."""
from __future__ import annotations

import logging
import random
from collections.abc import Collection

from prefork_lb.errors import CapacityError, Retry, UpstreamError
from prefork_lb.log_summary import summary
from prefork_lb.proxy.attempt import AttemptSettings, attempt
from prefork_lb.proxy.outbound import OutboundBody
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server

_LONGEST_BACKOFF_S = 1.0


class Retrying:
    """One exchange from its first failure on.

    A request of which no byte was sent may be sent again whatever its method; one that a server may have seen only when it
    is idempotent (RFC 9110 9.2.2). Each further attempt is at another server and within the pool's budget.

    Two things are held between attempts, and given back however the exchange ends: the retry that is counted as under way, and
    an answer with a status that is a failure, which owns its server's claim.
    """

    def __init__(self, pool: Pool, request: Request, block: bytes, body: OutboundBody, settings: AttemptSettings) -> None:
        self._pool = pool
        self._request = request
        self._block = block
        self._body = body
        self._settings = settings
        self._tried: list[Server] = []
        self._held: Reply | None = None  # an answer with a status that is a failure, in case there is no better
        self._failure: UpstreamError | None = None
        self._fresh = False  # the next attempt repeats the last one on a connection that was not kept
        self._is_under_way = False  # a retry is counted in the pool's budget

    def after_failure(self, server: Server, failure: UpstreamError, also_failed: Collection[Server] = ()) -> Reply:
        """Go on after an attempt without an answer; `also_failed` are servers of a hedged one that failed before `server` did.

        Raises UpstreamError when that is the end.
        """
        self._tried.extend(also_failed)
        try:
            if not self._note(server, failure):
                raise failure
            return self._go_on()
        finally:
            self._end_retry()

    def after_reply(self, server: Server, reply: Reply, also_failed: Collection[Server] = ()) -> Reply:
        """Go on after an answer with a status that is a failure; at worst it is the one that is given back."""
        self._tried.extend(also_failed)
        try:
            return reply if self._is_enough(server, reply) else self._go_on()
        except BaseException:
            reply.close()
            raise
        finally:
            self._end_retry()

    def _go_on(self) -> Reply:
        try:
            while True:
                reply = self._attempt()
                if reply is not None:
                    return reply
        except BaseException:
            if self._held is not None:
                self._held.close()
            raise

    def _attempt(self) -> Reply | None:
        """One more attempt: the exchange's answer, or None when yet another attempt is to be made."""
        pool = self._pool
        self._body.rewind()
        fresh, self._fresh = self._fresh, False
        request = self._request
        try:
            lease = pool.lease(request, self._tried, session=request.session)
            server = lease.server
            request.attempts += 1
            request.retries += not fresh
            reply = attempt(lease, request, self._block, self._body, fresh, self._settings)
        except CapacityError:  # no server is left, or this host has no socket for one
            return self._last_answer()
        except UpstreamError as exc:
            self._end_retry()
            return None if self._note(server, exc) else self._last_answer()
        self._end_retry()
        request.answered_at = self._settings.clock()
        if self._held is not None:
            self._held.close()
            self._held = None
        return reply if reply.status not in pool.retries.statuses or self._is_enough(server, reply) else None

    def _is_enough(self, server: Server, reply: Reply) -> bool:
        """Whether an answer with a status that is a failure is the exchange's answer all the same; else it is held."""
        self._tried.append(server)
        self._held = reply
        if self._request.is_idempotent and self._body.is_replayable and self._may_begin():
            self._tell(server, "will be tried again", "status", str(reply.status))
            return False
        self._held = None
        return True

    def _note(self, server: Server, failure: UpstreamError) -> bool:
        """Note a failure. Returns whether another attempt is to be made."""
        self._failure = failure
        self._fresh = again = False
        if self._body.is_replayable:
            if failure.retry is Retry.IF_REUSED:
                self._fresh = again = self._request.is_idempotent
            else:
                self._tried.append(server)
                safe = failure.retry is Retry.NOTHING_SENT or (
                    failure.retry is Retry.IF_IDEMPOTENT and self._request.is_idempotent)
                again = safe and failure.condition in self._pool.retries.conditions and self._may_begin()
        self._tell(server, "will be tried again" if again else "failed", failure.phase, str(failure))
        return again

    def _may_begin(self) -> bool:
        """Whether one more attempt is within the limits, which counts it; waits before it where it should."""
        rules = self._pool.retries
        number = len(self._tried)
        if number >= rules.attempts or number >= len(self._pool.servers) or not self._pool.budget.take():
            return False
        self._is_under_way = True
        if number > 1 or self._held is not None:
            most = min(rules.backoff_s * 2 ** (number - 1), _LONGEST_BACKOFF_S)
            if most:
                self._settings.sleep(most * random.random())
        return True

    def _end_retry(self) -> None:
        """Take the retry that is under way out of the budget's count, if there is one."""
        if self._is_under_way:
            self._is_under_way = False
            self._pool.budget.give_back()

    def _last_answer(self) -> Reply:
        """The answer or the error of the attempts so far. It tells the client more than "no server is left"."""
        if self._held is not None:
            return self._held
        assert self._failure is not None
        raise self._failure

    def _tell(self, server: Server, what: str, phase: str, why: str) -> None:
        self._request.note_failure(server, phase, why)
        summary.tell(logging.WARNING, (self._pool.name, server.name, what, phase), "pool %s: server %s: %s %s: %s: %s",
                     self._pool.name, server.name, self._request.method.decode("latin-1"), what, phase, why)
