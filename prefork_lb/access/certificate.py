"""Routes for clients that have shown a certificate."""
from __future__ import annotations

from prefork_lb.errors import Forbidden
from prefork_lb.routing.guards import Passed
from prefork_lb.routing.template import Facts

_PASSED = Passed()


def require_certificate(facts: Facts) -> Passed:
    """A guard: let clients pass whose certificate was verified. Raises Forbidden."""
    if facts.certificate is None:
        raise Forbidden("the route is for clients with a certificate, and this one has shown none")
    return _PASSED
