"""Cases that prefork_lb is known to fail, each with its reason. A case that passes again must leave this list."""
from __future__ import annotations

_TUNNEL = "WSGI has no tunnels; the origin's 101 becomes a 502"
_DATE = "gunicorn writes a Date of its own over the origin's"

_UNDER_WSGI: dict[str, str] = {
    "syntax: HTTP/1.2": "gunicorn answers in the request's version, HTTP/1.2",
    "hop-by-hop: a WebSocket tunnel": _TUNNEL,
    "hop-by-hop: Date and ETag pass": _DATE,
}

# These ask a second time on the same connection.
_ONE_REQUEST = "gunicorn's sync worker ends every connection after one response"
_UNDER_SYNC: dict[str, str] = {
    "hop-by-hop: the origin's Connection: close is its own": _ONE_REQUEST,
    "broken servers: a body after 204": _ONE_REQUEST,
    "broken servers: a body after 304": _ONE_REQUEST,
    "broken servers: a body after HEAD": _ONE_REQUEST,
}

KNOWN_FAILURES: dict[str, dict[str, str]] = {
    "sync": _UNDER_WSGI | _UNDER_SYNC,
    "gthread": _UNDER_WSGI,
    "gevent": _UNDER_WSGI,
    "ProxyWorker": {},
}
"""By worker class."""
