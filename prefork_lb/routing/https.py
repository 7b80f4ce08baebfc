"""A route for https alone: what comes over http is sent there, and browsers are told to come that way (RFC 6797)."""
from __future__ import annotations

from prefork_lb.errors import BadRequest, OwnAnswer
from prefork_lb.routing.actions import redirecting
from prefork_lb.routing.template import Facts

HSTS = b"strict-transport-security"

# Not 301: with that, browsers send a POST again as a GET.
_REDIRECT = redirecting("https://{host}{path}{query}", 308)


class Https:
    """The rules of one route."""

    def __init__(self, max_age_s: int, subdomains: bool) -> None:
        """`max_age_s` is for how long browsers are to come by https alone; 0: they forget what they were told."""
        self._field = b"Strict-Transport-Security", b"max-age=%d%b" % (max_age_s, b"; includeSubDomains" if subdomains else b"")

    def redirect(self, facts: Facts) -> OwnAnswer | None:
        """The answer to a request that came over http; None: it came over https. Raises BadRequest when no host is told."""
        if facts.scheme == b"https":
            return None
        if not facts.host or not facts.path.startswith(b"/"):
            raise BadRequest("a request over http without a host, or a path, cannot be sent to https")
        return _REDIRECT(facts)

    def fields(self, facts: Facts) -> list[tuple[bytes, bytes]]:
        """The fields of a response. RFC 6797 7.2: none over http."""
        return [self._field] if facts.scheme == b"https" else []
