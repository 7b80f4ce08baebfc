"""A server's condition in one word, and the reason for it in a sentence."""
from __future__ import annotations

from prefork_lb.shared.view import ServerView

_OPERATORS = {"drain": ("draining", "an operator drains it: it gets no new requests"),
              "maintenance": ("maintenance", "an operator has taken it out: no requests, no checks")}


def condition(server: ServerView) -> tuple[str, str]:
    """`up`, `ready`, `down`, `checking`, `ejected`, `trial`, `draining` or `maintenance`, and why; "" when it is well."""
    if server.leaving:
        return "draining", f"{server.source} does not list it any more; it is removed when nothing is left on it"
    if server.state in _OPERATORS:
        return _OPERATORS[server.state]
    if server.check in ("down", "checking"):
        return server.check, server.note or "not checked yet"
    if server.ejection == "ejected":
        return "ejected", f"{server.ejection_reason}; it is tried again in {max(1, round(server.ejected_s))} s"
    if server.ejection == "trial":
        return "trial", f"{server.ejection_reason}; one request decides whether it comes back"
    return ("up" if server.check == "up" else "ready"), ""
