"""Which pages of other origins may use a route: CORS, as the Fetch standard has it (fetch.spec.whatwg.org, "CORS protocol").

The route decides, not the server: what servers say of it is taken out of their responses.
"""
from __future__ import annotations

from collections.abc import Sequence

from prefork_lb.errors import OwnAnswer
from prefork_lb.wire.head import RequestHead

Fields = list[tuple[bytes, bytes]]

SERVERS_SAY = frozenset((
    b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-allow-methods",
    b"access-control-allow-headers", b"access-control-expose-headers", b"access-control-max-age"))
"""Names of fields, in lower case, that a server's response loses."""

_VARIES = (b"Vary", b"Origin")


class Cors:
    """The rules of one route."""

    def __init__(self, origins: Sequence[str], methods: Sequence[str] = (), fields: Sequence[str] = (),
                 exposed: Sequence[str] = (), credentials: bool = False, max_age_s: int = 0) -> None:
        """`origins` are as browsers send them, in lower case; `https://*.example.org` is any below a name, "*" any at all."""
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._below = [tuple(origin.encode().split(b"*", 1)) for origin in origins if "*." in origin]
        self._credentials = credentials
        self._exposed = ", ".join(exposed).encode()
        self._preflight: Fields = [(b"Access-Control-Allow-Methods", ", ".join(methods).encode())]
        if fields:
            self._preflight.append((b"Access-Control-Allow-Headers", ", ".join(fields).encode()))
        self._preflight.append((b"Access-Control-Max-Age", b"%d" % max_age_s))

    def preflight(self, head: RequestHead) -> OwnAnswer | None:
        """The answer to a question of a browser, whether it may send a request; None: this is no such question."""
        index = head.index
        if head.method != b"OPTIONS" or b"origin" not in index or b"access-control-request-method" not in index:
            return None
        allowed = self._allowed(head)
        return OwnAnswer(204, [*allowed, *self._preflight, _VARIES] if allowed else [_VARIES], b"")

    def fields(self, head: RequestHead) -> Fields:
        """The fields of a response."""
        found = self._allowed(head)
        if found and self._exposed:
            found.append((b"Access-Control-Expose-Headers", self._exposed))
        if not self._any:  # else a cache may give everybody the same
            found.append(_VARIES)
        return found

    def _allowed(self, head: RequestHead) -> Fields:
        """The fields that tell a browser that the request's origin may come; none: it may not, or there is none."""
        origin = head.index.get(b"origin", ())
        if self._any:
            return [(b"Access-Control-Allow-Origin", b"*")]
        if len(origin) != 1 or not self._knows(origin[0]):
            return []
        found = [(b"Access-Control-Allow-Origin", origin[0])]
        if self._credentials:
            found.append((b"Access-Control-Allow-Credentials", b"true"))
        return found

    def _knows(self, origin: bytes) -> bool:
        if origin in self._origins:
            return b"*" not in origin
        for before, behind in self._below:
            if origin.startswith(before) and origin.endswith(behind) and _is_name(origin[len(before):-len(behind)]):
                return True
        return False


def _is_name(text: bytes) -> bool:
    """Whether this can stand for the star: labels of a host, and nothing that leads out of it."""
    return bool(text) and text.replace(b"-", b"").replace(b".", b"").replace(b"_", b"").isalnum()
