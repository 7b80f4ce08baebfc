"""The engine: one straight line from request to reply, the same for every front end."""
from __future__ import annotations

import logging
from collections.abc import Mapping

from prefork_lb.errors import CapacityError, LoopDetected, MethodNotAllowed, Retry, UpstreamError
from prefork_lb.proxy.attempt import Settings, attempt
from prefork_lb.proxy.outbound import EMPTY, OutboundBody, request_block
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.routing.match import Router
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server
from prefork_lb.wire.forwarded import ClientInfo, times_passed
from prefork_lb.wire.framing import NO_BODY, Framing, request_framing
from prefork_lb.wire.target import destination

# A request may pass several balancers of the same name in a row, but not go in circles.
_MOST_PASSES = 8

log = logging.getLogger("prefork_lb")


class _Plan:
    """What follows from a head and its client alone. Heads come again, and then it need not be worked out again."""

    __slots__ = ("block", "engine", "framing", "peer", "pool")

    def __init__(self, engine: Engine, peer: ClientInfo, pool: Pool, framing: Framing, block: bytes) -> None:
        self.engine, self.peer = engine, peer
        self.pool, self.framing = pool, framing
        self.block = block  # the head as it goes to a server


class Engine:
    """Takes requests to servers. Has no state of its own but its pools."""

    def __init__(self, router: Router, pools: Mapping[str, Pool], settings: Settings) -> None:
        self._router = router
        self._pools = pools
        self._settings = settings
        # Whether a server wants the addresses of the client's connection (`Request.source`, `destination`).
        self.tells_addresses = any(server.proxy_protocol for pool in pools.values() for server in pool.servers)

    def exchange(self, request: Request) -> Reply:
        """Answer one client request; the caller must `close` the reply.

        Raises ProxyError, with nothing claimed any more, when there is no answer from a server.
        """
        plan = request.head.plan
        if not isinstance(plan, _Plan) or plan.peer is not request.peer or plan.engine is not self:
            plan = self._plan(request)
        body = EMPTY if plan.framing is NO_BODY else OutboundBody(request.body, plan.framing, not request.relays_continue)
        return self._attempts(plan.pool, request, plan.block, body)

    def _plan(self, request: Request) -> _Plan:
        head = request.head
        framing = request_framing(head)
        goal = destination(head)
        if head.method == b"TRACE":
            # It would hand cookies and credentials to scripts; nginx refuses it, too.
            raise MethodNotAllowed("TRACE")
        if times_passed(head.index, self._settings.pseudonym) >= _MOST_PASSES:
            raise LoopDetected(f"the request has come by {_MOST_PASSES} times")
        pool = self._pools[self._router.pool(goal.name, goal.path)]
        block = request_block(request, goal, framing, pool.name, self._settings.pseudonym)
        plan = _Plan(self, request.peer, pool, framing, block)
        if not request.relays_continue and not request.upgrade:  # these two are not the head's alone
            head.plan = plan
        return plan

    def _attempts(self, pool: Pool, request: Request, block: bytes, body: OutboundBody) -> Reply:
        tried: list[Server] = []
        failure: UpstreamError | None = None
        fresh = False
        while True:
            try:
                lease = pool.lease(request, tried)
            except CapacityError:
                if failure is not None:
                    raise failure from None  # what the last server did says more than that no other is left
                raise
            try:
                with lease:
                    return attempt(lease, request, block, body, fresh, self._settings)
            except UpstreamError as exc:
                failure = exc
                again = self._may_repeat(exc, request, body)
                if exc.retry is Retry.IF_REUSED:
                    fresh = True  # the server may be well: its turn is not over, but no kept-alive connection again
                else:
                    tried.append(lease.server)
                    again = again and len(tried) < pool.attempts
                log.warning("pool %s: server %s: %s %s: %s: %s", pool.name, lease.server.name, request.method.decode(),
                            "will be tried again" if again else "failed", exc.phase, exc)
                if not again:
                    raise

    @staticmethod
    def _may_repeat(failure: UpstreamError, request: Request, body: OutboundBody) -> bool:
        """The retry rule (RFC 9110 9.2.2): anything of which no byte was sent, idempotent requests on a dead idle connection."""
        if not body.is_replayable:
            return False
        if failure.retry is Retry.IF_REUSED:
            return request.is_idempotent
        return failure.retry is Retry.NOTHING_SENT
