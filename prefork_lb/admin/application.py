"""The administration interface as a WSGI application."""
from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from prefork_lb.admin.answers import Problem, of_exception, problem_response
from prefork_lb.admin.pages import Pages
from prefork_lb.admin.publishing import Publisher
from prefork_lb.admin.reading import Reading
from prefork_lb.admin.routes import Routes
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


class Application:
    """Answers every request: with what its route gives, or with a problem."""

    def __init__(self, segment: Segment, admin: AdminConfig, publisher: Publisher) -> None:
        self.routes = Routes([*Reading(publisher).routes(), *Streaming(publisher).routes(), *Pages().routes()])

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        response = self._answer(request)
        for name, value in _SECURITY.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        try:
            route, variables = self.routes.find(request)
            return route.handler(request, **variables)
        except Problem as exc:
            return problem_response(exc.status, exc.detail, exc.place, exc.headers)
        except HTTPException as exc:
            return of_exception(exc)
        except Exception:
            log.exception("the administration interface cannot answer %s %r", request.method, request.path[:200])
            return problem_response(500, "a defect of prefork_lb; the error log has more")
