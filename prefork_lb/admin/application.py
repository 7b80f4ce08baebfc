"""The administration interface as a WSGI application."""
from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from prefork_lb.admin.access import READS, Access
from prefork_lb.admin.answers import Problem, of_exception, problem_response
from prefork_lb.admin.changing import Changing
from prefork_lb.admin.dashboard_files import DashboardFiles
from prefork_lb.admin.endpoints import Endpoint, Endpoints
from prefork_lb.admin.events import Events
from prefork_lb.admin.publishing import Publisher
from prefork_lb.admin.reading import Reading
from prefork_lb.admin.requests import AdminRequest
from prefork_lb.admin.signing_in import SigningIn
from prefork_lb.admin.streaming import Streaming
from prefork_lb.config.admin import AdminConfig
from prefork_lb.shared.segment import Segment

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Nothing from elsewhere is loaded, nothing inline runs, and no other page frames this one.
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                               "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = logging.getLogger("prefork_lb")


class AdminApplication:
    """Answers every request: with what its endpoint gives, or with a problem."""

    def __init__(self, segment: Segment, admin: AdminConfig, publisher: Publisher) -> None:
        self._access = Access(admin, segment.secret)
        events = Events(segment)
        parts = (Reading(segment, publisher), Changing(segment, publisher), events, Streaming(publisher, events),
                 SigningIn(self._access), DashboardFiles())
        self.endpoints = Endpoints([endpoint for part in parts for endpoint in part.endpoints()])

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = AdminRequest(environ)
        response = self._answer(request)
        for name, value in _SECURITY.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        return response(environ, start_response)

    def _answer(self, request: AdminRequest) -> Response:
        try:
            self._access.check_place(request)
            request.caller = self._access.caller(request)
            endpoint, variables = self._allowed(request)
            return endpoint.handler(request, **variables)
        except Problem as exc:
            return problem_response(exc.status, exc.detail, exc.place, exc.headers)
        except HTTPException as exc:
            return of_exception(exc)
        except Exception:
            log.exception("the administration interface cannot answer %s %r", request.method, request.path[:200])
            return problem_response(500, "a defect of prefork_lb; the error log has more")

    def _allowed(self, request: AdminRequest) -> tuple[Endpoint, dict[str, Any]]:
        """The endpoint of a request and its path's variables, if the caller may take it. Raises Problem, HTTPException."""
        endpoint, variables = self.endpoints.find(request)
        if endpoint.is_open:
            return endpoint, variables
        if request.caller is None:
            raise Problem(401, "a token is needed: Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"})
        if endpoint.method not in READS:
            if not request.caller.is_operator:
                raise Problem(403, f"{request.caller.name} is a reader; changes need the token of an operator")
            self._access.check_change(request, request.caller)
        return endpoint, variables
