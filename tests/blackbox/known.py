"""Cases that prefork_lb is known to fail, each with its reason. A case that passes again must leave this list."""
from __future__ import annotations

_TUNNEL = "tunnels after 101 are not built yet; the origin's 101 becomes a 502"
_DATE = "gunicorn writes a Date of its own over the origin's"
_CHUNK = "gunicorn's chunk reader waits for more where it could refuse; the client gets 408 instead of 400"

KNOWN_FAILURES: dict[str, str] = {
    "syntax: HTTP/1.2": "gunicorn answers in the request's version, HTTP/1.2",
    "hop-by-hop: a WebSocket tunnel": _TUNNEL,
    "hop-by-hop: Date and ETag pass": _DATE,
    "framing: chunk size over 64 bits": _CHUNK,
    "framing: chunk size of -1 in 64 bits": _CHUNK,
    "framing: the last chunk ends in bare LF": _CHUNK,
}
