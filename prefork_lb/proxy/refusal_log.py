"""The log lines of requests that are answered with an error page of ours."""
from __future__ import annotations

import logging

from prefork_lb.errors import CapacityError, FilterFailed, OwnAnswer, ProxyError
from prefork_lb.log_summary import summary
from prefork_lb.proxy.logged_text import log_text


def tell_refusal(exc: Exception, client: str, what: str) -> None:
    """Log why the request `what` (method and target) of the client at this address is refused; many of a kind are summed up.

    A server's failure was logged with its attempt, and is not logged again. An error that is no ProxyError is a defect, of ours
    or of a policy of the site's own, and gets its traceback.
    """
    if isinstance(exc, OwnAnswer):
        return
    what = log_text(what)  # under gunicorn's workers a target may hold any byte
    if not isinstance(exc, ProxyError):
        summary.tell(logging.ERROR, ("internal error", type(exc), _place(exc)), "internal error: %s: %r", what, exc, exc_info=exc)
    elif isinstance(exc, FilterFailed):
        summary.tell(logging.ERROR, ("filter", exc.place), "%s: %s", exc, what)
    elif exc.side != "upstream":
        # Messages of capacity name the pool and its limit. Those of bad requests say what the client sent, and have no end.
        kind = type(exc), str(exc) if isinstance(exc, CapacityError) else ""
        summary.tell(logging.INFO, kind, "%s: %s: %d: %s", client, what, exc.status, exc)


def _place(exc: BaseException) -> tuple[str, int]:
    """Where it was raised: file and line."""
    trace = exc.__traceback__
    if trace is None:
        return "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
