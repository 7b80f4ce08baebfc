"""An engine some of whose requests are looked at by a site's own filters.

Filters come behind everything that may refuse a request (routes, limits, access) and before the pick. What they change holds for
the one request: the plan that is kept with its head is the one without them.
"""
from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from prefork_lb.balance.keys import KeyOf
from prefork_lb.balance.policy import RequestInfo
from prefork_lb.clock import Clock
from prefork_lb.errors import FilterFailed, OwnAnswer, printable
from prefork_lb.filters import Answer, Exchange, Filter
from prefork_lb.filters import Request as SeenRequest
from prefork_lb.filters import Response as SeenResponse
from prefork_lb.filters.message import Fields
from prefork_lb.log_summary import summary
from prefork_lb.net.networks import LiesIn
from prefork_lb.own_code import place_of, told
from prefork_lb.proxy.attempt import AttemptSettings
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.plan import Plan
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Ended, FieldPairs, Request
from prefork_lb.routing.actions import Applied
from prefork_lb.routing.match import Route, Router
from prefork_lb.upstream.pool import Pool
from prefork_lb.wire.fields import cgi_name
from prefork_lb.wire.forwarded import client_scheme, told_client
from prefork_lb.wire.framing import Framing
from prefork_lb.wire.head import RequestHead, list_members
from prefork_lb.wire.target import Destination, host_name

Count = Callable[[], None]

_STAGES = "on_request", "on_response", "on_end"


class LoadedFilter:
    """A filter that is in use, and what is told of it."""

    def __init__(self, name: str, made: Filter, limit_s: float, clock: Clock, count_failure: Count, count_late: Count) -> None:
        """`limit_s`: a call that takes longer is told in the log, and counted."""
        self.name = name
        self.filter = made
        self.stages = frozenset(stage for stage in _STAGES if getattr(type(made), stage) is not getattr(Filter, stage))
        self._limit_s, self._clock = limit_s, clock
        self._count_failure, self._count_late = count_failure, count_late

    def call(self, stage: str, *arguments: object) -> object:
        """Call one of its methods. Raises FilterFailed for whatever that raises."""
        begun = self._clock()
        try:
            return getattr(self.filter, stage)(*arguments)
        except Exception as exc:
            raise self.failed(stage, exc) from None  # no traceback: the log would have one for each request
        finally:
            took_s = self._clock() - begun
            if took_s > self._limit_s:
                self._count_late()
                summary.tell(logging.WARNING, ("late", self.name, stage), "filter %s: %s took %.2f s; proxy.timeouts.filter is "
                             "%g s", self.name, stage, took_s, self._limit_s)

    def failed(self, stage: str, exc: Exception) -> FilterFailed:
        """Count a failure, and return the error to raise."""
        self._count_failure()
        error = FilterFailed(f"filter {self.name}: {stage}: {printable(told(exc))}")
        error.place = f"{self.name} {stage} {place_of(exc)}"
        return error


class Filtering:
    """The filters that look at one request, and what they see of it."""

    __slots__ = ("_filters", "seen")

    def __init__(self, seen: SeenRequest) -> None:
        self.seen = seen
        self._filters: list[LoadedFilter] = []

    def ask(self, filters: Sequence[LoadedFilter]) -> None:
        """Let these look at the request. Raises OwnAnswer, the answer of one of them, and FilterFailed."""
        for each in filters:
            self._filters.append(each)
            if "on_request" in each.stages:
                answer = each.call("on_request", self.seen)
                if answer is not None:
                    raise _own_answer(each, answer)

    def on_response(self, reply: Reply) -> None:
        """Let them look at a server's response, the last one first. Raises FilterFailed."""
        filters = [each for each in reversed(self._filters) if "on_response" in each.stages]
        if filters:
            seen = SeenResponse(reply.status, reply.head.fields, reply.served_by.name)
            for each in filters:
                each.call("on_response", self.seen, seen)
            if seen.fields.is_changed or seen.status != reply.status:
                reply.rewrite(seen.status, seen.fields.pairs)

    def on_end(self, request: Request) -> None:
        """Tell them that the exchange is over."""
        server = request.server.name if request.server is not None else ""
        for each in self._filters:
            if "on_end" in each.stages:
                exchange = Exchange(request.status, server, request.ended_at - request.started, request.bytes_in,
                                    request.bytes_out, request.error)
                try:
                    each.call("on_end", self.seen, exchange)
                except FilterFailed as exc:
                    summary.tell(logging.ERROR, ("filter", exc.place), "%s", exc)


class FilteringEngine(Engine):
    """An engine with filters on routes and pools."""

    def __init__(self, router: Router, pools: Mapping[str, Pool], settings: AttemptSettings, filters: Mapping[str, LoadedFilter],
                 of_pools: Mapping[str, Sequence[str]], is_trusted: LiesIn, copied: Ended | None = None) -> None:
        """`filters` by the names that routes have them by, and those of pools in `of_pools`."""
        super().__init__(router, pools, settings, copied)
        self._filters = filters
        self._of_pools = {name: [filters[each] for each in names] for name, names in of_pools.items()}
        self._pool_names = frozenset(pools)
        self._is_trusted = is_trusted

    def exchange(self, request: Request) -> Reply:
        asked = request.head
        try:
            reply = super().exchange(request)
        finally:
            request.head = asked  # for the client's connection, and the log
        filtering = request.filtering
        if isinstance(filtering, Filtering):
            try:
                filtering.on_response(reply)
            except BaseException:
                reply.close()
                raise
        return reply

    def plan_for(self, request: Request, route: Route, pool: Pool, goal: Destination, framing: Framing,
                 applied: Applied | None) -> Plan:
        plan = super().plan_for(request, route, pool, goal, framing, applied)
        of_route = [self._filters[name] for name in route.filters]
        if of_route or self._of_pools.get(pool.name):
            plan.filters = functools.partial(self._filtered, of_route, (route, goal, framing, applied))
        return plan

    def _filtered(self, of_route: Sequence[LoadedFilter],
                  found: tuple[Route, Destination, Framing, Applied | None], request: Request) -> Plan:
        """Let the filters look at a request. Return the plan that they want for it."""
        plan, head = request.plan, request.head
        assert plan is not None
        route, goal, framing, applied = found
        client = told_client(head.index, request.peer.address, self._is_trusted)
        seen = SeenRequest(head.method, goal.target, goal.host, _seen_fields(request, applied), client,
                           client_scheme(head.index, request.peer), plan.pool.name, self._pool_names)
        filtering = request.filtering = Filtering(seen)
        filtering.ask(of_route)
        chosen = seen.pool
        filtering.ask(self._of_pools.get(chosen, ()))
        if seen.pool != chosen:
            raise FilterFailed(f"filters of pool {chosen}: one chose the pool {seen.pool}; only a filter of a route may choose")
        request.key = request.chosen_key = seen.key.encode("utf-8", "surrogatepass")
        if not seen.is_rewritten and not seen.fields.is_changed and not seen.is_pool_chosen:
            return plan
        host = seen.host.encode("latin-1") or None
        goal = Destination(seen.target.encode("latin-1"), host, host_name(host))
        request.head = RequestHead(seen.method.encode("latin-1"), goal.target, head.minor, _fields(seen.fields), True)
        plan = super().plan_for(request, route, self.pools[chosen], goal, framing, applied)
        if plan.serving is not None and seen.is_pool_chosen:
            plan.serving = replace(plan.serving, split=None)  # or the split would choose again
        return plan


def chosen_key(key_of: KeyOf) -> KeyOf:
    """Finds the key that a filter has chosen, else the one of `key_of`."""
    def find(request: RequestInfo) -> bytes:
        return (request.chosen_key if isinstance(request, Request) else b"") or key_of(request)

    return find


def tell_filters(request: Request) -> None:
    """Hears of exchanges that are over."""
    if isinstance(request.filtering, Filtering):
        request.filtering.on_end(request)


def _seen_fields(request: Request, applied: Applied | None) -> FieldPairs:
    """What filters see. Where guards say who the client is, what the client itself says of that is not among it."""
    fields, passed = request.head.fields, request.passed
    if applied is None or passed is None:
        return fields
    removed = applied.actions.request.removed
    return [field for field in fields if cgi_name(field[0]) not in removed] + list(passed.fields)


def _fields(seen: Fields) -> list[tuple[bytes, bytes]]:
    """The fields for a server. What Connection names stops here; so a client must not name there what a filter has written."""
    fields = []
    for name, value in seen.pairs:
        if name.lower() == b"connection":
            value = b", ".join([member for member in list_members([value]) if member not in seen.written])
        fields.append((name, value))
    return fields


def _own_answer(each: LoadedFilter, answer: object) -> OwnAnswer:
    try:
        if not isinstance(answer, Answer):
            raise TypeError(f"it returned {answer!r:.80}; expected an Answer, or None")
        if not 200 <= answer.status <= 599:
            raise ValueError(f"an answer of the status {answer.status}")
        fields = Fields([(b"Content-Type", b"text/plain; charset=utf-8")], of_request=False)
        for name, value in answer.fields.items():
            fields.set(name, value)
        body = answer.body.encode() if isinstance(answer.body, str) else bytes(answer.body)
    except (TypeError, ValueError) as exc:
        raise each.failed("on_request", exc) from None
    return OwnAnswer(answer.status, fields.pairs, b"" if answer.status in (204, 304) else body)
