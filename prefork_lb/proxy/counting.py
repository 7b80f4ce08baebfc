"""Exchanges that are over, counted in the statistics of their worker."""
from __future__ import annotations

from prefork_lb.proxy.request import Ended, Request
from prefork_lb.shared.statistics import Tally


def counting(tally: Tally) -> Ended:
    """Counts each exchange once: at the server whose answer its client got, else at its pool, else at the instance."""

    def count(request: Request) -> None:
        plan, reply = request.plan, request.reply
        if plan is None:
            tally.count_without_pool(request.status)
        elif reply is None:
            tally.count_own(plan.pool.number, request.status, request.ended_at - request.started)
        else:
            status = reply.status  # not 499: the client left in the middle of this answer, but it had begun
            # A tunnel may last for days, which says nothing about the time of an answer.
            over_at = request.answered_at if status == 101 else request.ended_at
            tally.count_answer(reply.served_by.slot, plan.pool.number, status, request.bytes_in, request.bytes_out,
                               over_at - request.started)

    return count
