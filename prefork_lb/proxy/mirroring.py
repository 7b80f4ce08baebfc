"""Copies of requests to another pool, beside their exchanges; what the servers answer is dropped.

The exchange must not notice its copy, whatever becomes of that. So a copy shares what is in memory already, and holds nothing of
the client: a body that is longer, or not received whole before a server was claimed, is not copied. It has a greenlet or a thread
of its own, and begins while the exchange waits for its server. When too many copies are under way, as with a mirror that hangs,
no more are made until some have ended.
"""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from prefork_lb.log_summary import summary
from prefork_lb.proxy.attempt import AttemptSettings
from prefork_lb.proxy.inbound import NO_CLIENT
from prefork_lb.proxy.outbound import NOTHING, OutboundBody
from prefork_lb.proxy.plan import Plan
from prefork_lb.proxy.refusal_log import tell_refusal
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Ended, Request
from prefork_lb.routing.mirror import Mirror

_MOST_COPIES = 64  # of a worker, at a time
_MOST_BODY_BYTES = 64 * 1024
_MOST_ANSWER_BYTES = 1 << 20  # the rest of a longer answer is not waited for

Send = Callable[[Plan, Request, bytes, OutboundBody], Reply]
"""Sends a request to a server of the plan's pool, as `Engine` does. Raises ProxyError."""


class Mirroring:
    """The copies that one worker makes."""

    def __init__(self, send: Send, settings: AttemptSettings, ended: Ended | None) -> None:
        """`ended` hears of copies that are over; None: nobody wants to know."""
        self._send = send
        self._settings = settings
        self._ended = ended
        self._places = threading.BoundedSemaphore(_MOST_COPIES)

    def copy(self, mirror: Mirror, plan: Plan, request: Request, block: bytes, body: OutboundBody) -> None:
        """Send a copy of a request by this plan, if it is its turn. Neither waits nor raises."""
        if request.upgrade or not mirror.is_due() or not body.is_whole or len(body.first) > _MOST_BODY_BYTES:
            return
        if not self._places.acquire(blocking=False):
            summary.tell(logging.WARNING, ("mirror", mirror.pool), "pool %s: %d copies are under way: no more are made",
                         mirror.pool, _MOST_COPIES)
            return
        copy = Request(request.head, request.peer, NOTHING, NO_CLIENT, request.source, request.destination,
                       self._settings.clock())
        copy.plan = plan
        self._settings.aside(partial(self._run, plan, copy, block, body))

    def _run(self, plan: Plan, copy: Request, block: bytes, body: OutboundBody) -> None:
        reply: Reply | None = None
        error: Exception | None = None
        received = 0
        try:
            reply = self._send(plan, copy, block, body)
            received = self._drop(reply)
        except Exception as exc:  # a site's own policy may raise anything
            error = exc
            tell_refusal(exc, copy.client, f"a copy to the pool {plan.pool.name}")
        finally:
            if reply is not None:
                reply.close()
            self._places.release()
        if self._ended is not None:
            copy.end(self._settings.clock(), received, error, reply)
            self._ended(copy)

    def _drop(self, reply: Reply) -> int:
        """Receive the answer, in about the time that its head may take. How much it was."""
        clock, received = self._settings.clock, 0
        deadline = clock() + self._settings.timeouts.response
        while received < _MOST_ANSWER_BYTES and clock() < deadline and (data := reply.read()):
            received += len(data)
        return received
