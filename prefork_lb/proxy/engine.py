"""The engine: one straight line from request to reply, the same for every front end."""
from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Final

from prefork_lb.errors import DownstreamError, LoopDetected, MethodNotAllowed, NoUsableServer, UpstreamError
from prefork_lb.log_summary import summary
from prefork_lb.proxy.attempt import AttemptSettings, Timeouts, attempt
from prefork_lb.proxy.hedging import hedged, may_hedge
from prefork_lb.proxy.mirroring import Mirroring
from prefork_lb.proxy.outbound import EMPTY, OutboundBody, request_block
from prefork_lb.proxy.plan import Plan
from prefork_lb.proxy.redirecting import check_redirectable, drop_body, redirect
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Ended, Request
from prefork_lb.proxy.retrying import Retrying
from prefork_lb.proxy.tracing import server_timing
from prefork_lb.routing.actions import Applied
from prefork_lb.routing.match import Route, Router
from prefork_lb.routing.serving import OwnPages, ServerTimeouts, Serving
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.session import Sticky
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.forwarded import client_scheme, times_passed
from prefork_lb.wire.framing import BY_LENGTH, NO_BODY, Framing, request_framing
from prefork_lb.wire.target import Destination, destination

# A request may pass several balancers of the same name in a row, but not go in circles.
_MOST_PASSES: Final = 8

_NOT_TOLD: Final[tuple[Sticky | None, object]] = None, None


class Engine:
    """Takes requests to servers. Has no state of its own but its pools."""

    def __init__(self, router: Router, pools: Mapping[str, Pool], settings: AttemptSettings, copied: Ended | None = None) -> None:
        """`copied` hears of copies of requests that are over (`proxy.mirroring`); None: nobody wants to know."""
        self._router = router
        self.pools = pools
        self._settings = settings
        self._identities, self._tells_times = settings.identities, settings.tells_times
        self._own_cookies = frozenset((*(pool.sticky.cookie for pool in pools.values() if pool.sticky and pool.sticky.cookie),
                                       *router.own_cookies))
        self._with_timeouts: dict[ServerTimeouts, AttemptSettings] = {}
        self._mirroring = Mirroring(self._attempts, settings, copied)
        # Whether a server wants the addresses of the client's connection (`Request.source`, `destination`).
        self.tells_addresses = any(server.proxy_protocol for pool in pools.values() for server in pool.servers)

    def exchange(self, request: Request) -> Reply:
        """Answer one client request; the caller must `close` the reply.

        Raises ProxyError, with nothing claimed any more, when there is no answer from a server.
        """
        identities = self._identities
        if identities is not None:
            request.identity = identities.of(request.head.index, request.peer)
        plan = request.head.kept
        if not isinstance(plan, Plan) or plan.peer is not request.peer or plan.engine is not self:
            plan = self.plan(request)
        else:
            request.pages = plan.pages
            if plan.take is not None:
                plan.take()
        request.plan = plan
        passed = request.passed = plan.guarded.enter() if plan.guarded is not None else None
        try:
            if plan.filters is not None:
                plan = request.plan = plan.filters(request)
            sticky = plan.pool.sticky
            if plan.serving is not None:
                reply = self._serve(plan, plan.serving, request)
            else:
                reply = self._exchange(plan, request) if sticky is None else self._in_session(plan, sticky, request)
        except BaseException:
            if passed is not None:
                passed.leave()
            raise
        if passed is not None:
            reply.at_close = passed.leave
        if self._tells_times:
            reply.added = (*reply.added, _times(request))
        if plan.changes is not None:
            removed, written = plan.changes
            reply.change_fields(removed, written)
        return reply

    def _serve(self, first: Plan, serving: Serving, request: Request) -> Reply:
        """Answer by one of the pools of the route."""
        # Made once for all pools: the second one gets what was received for the first.
        body = None if first.framing is NO_BODY or first.pool.redirect_status else self._outbound(first, request)
        plan, *others = self.plans(first, serving, request)
        request.plan = plan
        try:
            reply = self._by_pool(plan, request, body)
        except NoUsableServer:
            if not others:
                raise
            request.plan, request.session = others[0], None
            reply = self._by_pool(others[0], request, body)
        split, name = serving.split, request.plan.pool.name
        # A client keeps its cookie while another pool serves it: after the failure the shares are what they were.
        if split is not None and split.cookie and split.has(name) and not split.told(request.index.get(b"cookie", ())):
            reply.added = (*reply.added, split.cookie_for(name, _is_https(request)))
        return reply

    def plans(self, first: Plan, serving: Serving, request: Request) -> list[Plan]:
        """The plans for the pools of a route in the order in which they are tried: the next one when one has no usable server.

        Takes a turn of the split. Servers that have all failed are tried only when the other pool has no better ones.
        """
        plan = first
        if serving.split is not None:
            plan = self._plan_at(first, serving.split.pick(request.index.get(b"cookie", ())), request)
        if serving.failover in ("", plan.pool.name):
            return [plan]
        other = self._plan_at(first, serving.failover, request)
        if plan.pool.has_failed and not other.pool.has_failed:
            summary.tell(logging.WARNING, ("failover", plan.pool.name), "pool %s: every server has failed: the pool %s serves",
                         plan.pool.name, other.pool.name)
            return [other, plan]
        return [plan, other]

    def _plan_at(self, first: Plan, name: str, request: Request) -> Plan:
        if name == first.pool.name:
            return first
        plan = first.others.get(name) if first.others is not None else None
        if plan is None:
            pool = self.pools[name]
            if pool.redirect_status:
                check_redirectable(first.target)
            plan = first.at(pool, self._told(pool, request))
        return plan

    def _by_pool(self, plan: Plan, request: Request, body: OutboundBody | None) -> Reply:
        sticky = plan.pool.sticky
        return self._exchange(plan, request, body) if sticky is None else self._in_session(plan, sticky, request, body)

    def _in_session(self, plan: Plan, sticky: Sticky, request: Request, body: OutboundBody | None = None) -> Reply:
        teller, told = plan.told
        if teller is not sticky:  # the pool's servers are others by now
            told = sticky.read(request, _is_https(request))
            plan.told = sticky, told
        session = request.session = sticky.find(told)
        reply = self._exchange(plan, request, body)
        try:
            sticky = plan.pool.sticky or sticky  # which knows the servers of this moment
            reply.added = sticky.settle(session, reply.served_by, reply.head.index)
        except BaseException:
            reply.close()
            raise
        return reply

    def _exchange(self, plan: Plan, request: Request, body: OutboundBody | None = None) -> Reply:
        if plan.pool.redirect_status:
            return self._redirect(plan, request)
        block = plan.block if request.identity is None else request.identity.block(plan.block)
        if request.passed is not None and request.passed.fields:
            block = block[:-2] + field_lines(request.passed.fields) + b"\r\n"
        if plan.framing is NO_BODY:
            return self._attempts(plan, request, block, EMPTY)
        if body is None:
            body = self._outbound(plan, request)
        rules = plan.pool.retries
        if rules.attempts > 1 and request.is_idempotent:
            body.keep(rules.body_memory, rules.body_limit)
        try:
            return self._attempts(plan, request, block, body)
        finally:
            request.bytes_in = body.received
            body.forget()

    def _outbound(self, plan: Plan, request: Request) -> OutboundBody:
        """A request's body; a small one is received whole."""
        settings = self._settings
        collect = settings.collected_bytes if plan.framing.kind is BY_LENGTH or settings.collects_chunked else 0
        return OutboundBody(request.body, plan.framing, not request.relays_continue, collect, plan.body_limit)

    def plan(self, request: Request) -> Plan:
        """What is to be done for a request, before a server is picked. Raises ProxyError when it is refused."""
        head = request.head
        framing = request_framing(head)
        goal = destination(head)
        if head.method == b"TRACE":
            # It would hand cookies and credentials to scripts; nginx refuses it, too.
            raise MethodNotAllowed("TRACE")
        if times_passed(head.section, self._settings.pseudonym) >= _MOST_PASSES:
            raise LoopDetected(f"the request has come by {_MOST_PASSES} times")
        route, target = self._router.find(goal, head, request.peer)
        applied, serving = None, route.serving
        if serving is not None or route.actions is not None:
            facts = self._router.facts(route, goal, target, head, request.peer)
            if serving is not None:
                if (answer := serving.answer(facts)) is not None:
                    raise answer
                request.pages = serving.pages(facts)
            if route.actions is not None:
                applied = route.actions.apply(facts, target, framing.length)
                target = applied.target
        if target is not goal.target:
            goal = Destination(target, goal.host, goal.name)
        plan = self.plan_for(request, route, self.pools[route.pool], goal, framing, applied)
        if not request.relays_continue and not request.upgrade:  # these two are not the head's alone
            head.kept = plan
        return plan

    def plan_for(self, request: Request, route: Route, pool: Pool, goal: Destination, framing: Framing,
                 applied: Applied | None) -> Plan:
        """What is to be done for a request that has taken a route, and goes to this pool. Raises ProxyError."""
        block = request_block(request, goal, framing, pool.name, self._settings.pseudonym, self._own_cookies, applied)
        if pool.redirect_status:
            check_redirectable(goal.target)
        told = _NOT_TOLD if pool.sticky is None else self._told(pool, request)
        plan = Plan(self, request.peer, pool, framing, block, goal.target, told)
        if applied is not None:
            plan.take, plan.body_limit, plan.changes = applied.take, applied.actions.body_limit, applied.of_response()
            plan.guarded = applied.guarded()
        if route.serving is not None:
            self._use(route.serving, plan, request.pages)
        return plan

    def _use(self, serving: Serving, plan: Plan, pages: OwnPages) -> None:
        """Let a plan have what its route says of how it is served."""
        plan.serving, plan.pages, plan.bandwidth = serving, pages, serving.bandwidth
        if serving.removed:
            removed, written = plan.changes or (frozenset(), ())
            plan.changes = removed | serving.removed, [*pages.fields, *written]
        if (mirror := serving.mirror) is not None:
            copies = Plan(self, plan.peer, self.pools[mirror.pool], plan.framing, plan.block, plan.target, _NOT_TOLD)
            plan.mirror = functools.partial(self._mirroring.copy, mirror, copies)
        if any(serving.timeouts):
            plan.settings = self._with_timeouts.get(serving.timeouts)
            if plan.settings is None:
                usual = self._settings.timeouts
                own = Timeouts(*(seconds or other for seconds, other in zip(serving.timeouts, astuple(usual), strict=True)))
                plan.settings = self._with_timeouts[serving.timeouts] = replace(self._settings, timeouts=own)

    @staticmethod
    def _told(pool: Pool, request: Request) -> tuple[Sticky | None, object]:
        sticky = pool.sticky
        return sticky, sticky.read(request, _is_https(request)) if sticky else None

    def _redirect(self, plan: Plan, request: Request) -> Reply:
        settings, pool = self._settings, plan.pool
        if plan.framing is not NO_BODY and not request.relays_continue:
            drop_body(request.body)
        lease = pool.lease(request, (), request.downstream, request.session)
        request.leased_at = request.answered_at = settings.clock()
        return redirect(lease, pool.redirect_status, request.method, plan.target, settings.pseudonym)

    def _attempts(self, plan: Plan, request: Request, block: bytes, body: OutboundBody) -> Reply:
        settings, pool = plan.settings or self._settings, plan.pool
        rules = pool.retries
        clock = settings.clock
        lease = pool.lease(request, (), request.downstream, request.session)
        begun = request.leased_at = clock()
        if plan.mirror is not None:
            plan.mirror(request, block, body)
        failed: list[Server] = []  # of a hedged request
        try:
            if rules.hedge and body is EMPTY and may_hedge(pool, request):
                with lease:
                    reply = hedged(pool, lease, request, block, settings, failed)
            else:
                reply = attempt(lease, request, block, body, False, settings)
        except UpstreamError as exc:
            server = failed.pop() if failed else lease.server
            return Retrying(pool, request, block, body, settings).after_failure(server, exc, failed)
        except DownstreamError:
            request.failed_at = lease.server
            raise
        request.answered_at = answered = clock()
        pool.outcomes.times.note(answered - begun)
        if reply.status in rules.statuses:
            return Retrying(pool, request, block, body, settings).after_reply(reply.served_by, reply, failed)
        return reply


def _is_https(request: Request) -> bool:
    """Whether the client speaks https."""
    return client_scheme(request.head.index, request.peer) == b"https"


def _times(request: Request) -> tuple[bytes, bytes]:
    return server_timing(request.queue_s, request.connect_s, request.answered_at - request.leased_at)
