"""Browsers sign in with a token and have a cookie then, which no script can read."""
from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from werkzeug.wrappers import Response

from prefork_lb.admin.access import COOKIE, SESSION_S, Access
from prefork_lb.admin.answers import Problem, json_response
from prefork_lb.admin.endpoints import Endpoint
from prefork_lb.admin.requests import AdminRequest, Caller

# Cookies know no ports: other programs on this host's name are sent it only below this path.
_PATH = "/api/v1/"

log = logging.getLogger("prefork_lb")


class _SignIn(msgspec.Struct, forbid_unknown_fields=True):
    token: str


class SigningIn:
    """The handlers of the session."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def endpoints(self) -> Sequence[Endpoint]:
        return [
            Endpoint("GET", "/api/v1/session", self.session, is_open=True),
            Endpoint("POST", "/api/v1/session", self.sign_in, is_open=True),
            Endpoint("DELETE", "/api/v1/session", self.sign_out, is_open=True),
        ]

    def session(self, request: AdminRequest) -> Response:
        """Who the caller is, and what a browser has to send with a change."""
        return _told(request.caller)

    def sign_in(self, request: AdminRequest) -> Response:
        """Begin a session."""
        found = self._access.session_for(request.body_as(_SignIn).token)
        if found is None:
            log.warning("administration interface: a wrong token from %s", request.remote_addr or "the unix socket")
            raise Problem(401, "there is no such token", headers={"WWW-Authenticate": "Bearer"})
        caller, cookie = found
        response = _told(caller)
        is_secure = request.headers.get("Origin", "").startswith("https:")  # by way of a proxy with TLS
        response.set_cookie(COOKIE, cookie, max_age=SESSION_S, path=_PATH, httponly=True, samesite="Strict", secure=is_secure)
        return response

    def sign_out(self, request: AdminRequest) -> Response:
        """End the session in this browser."""
        response = Response(status=204)
        response.delete_cookie(COOKIE, path=_PATH, httponly=True, samesite="Strict")
        return response


def _told(caller: Caller | None) -> Response:
    # Not 401: a browser would log an error for each page that is about to show its form.
    return json_response({"role": caller.role, "name": caller.name, "csrf": caller.csrf} if caller is not None
                         else {"role": None, "name": "", "csrf": ""})
