"""A real application with logins in the memory of its process: `python -m tests.support.session_app HOST PORT ROUTE`.

Whoever comes to another process than the one of the login is a stranger there. The session's cookie ends with the process' route.
"""
from __future__ import annotations

import secrets
import sys

from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server


def session_app(route: str) -> Flask:
    app = Flask(__name__)
    logins: dict[str, str] = {}

    @app.post("/login/<name>")
    def login(name: str) -> Response:
        session = f"{secrets.token_hex(8)}.{route}"
        logins[session] = name
        response = Response(route)
        response.set_cookie("sid", session)
        return response

    @app.get("/account")
    def account() -> Response:
        """Who is logged in here, the route of this process, and the Cookie field that came."""
        name = logins.get(request.cookies.get("sid", ""))
        if name is None:
            return Response(f"stranger {route} {request.headers.get('Cookie', '')}", 401)
        return Response(f"{name} {route} {request.headers.get('Cookie', '')}")

    return app


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    host, port, route = sys.argv[1:]
    server = make_server(host, int(port), session_app(route), threaded=True, request_handler=_Quiet)
    print(server.port, flush=True)
    server.serve_forever()
