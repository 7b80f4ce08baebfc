"""The OpenAPI 3.1 document of the administration interface."""
from __future__ import annotations

from typing import Any

from prefork_lb import __version__
from prefork_lb.admin.schemas import SCHEMAS, Schema, array, integer, record, ref, text

Operation = dict[str, Any]

_DESCRIPTION = """Reads and steers one instance of prefork_lb. Reading needs the token of a reader or an operator, changing that
of an operator; without `admin.token_file` everybody who reaches the listener is an operator. A change is in force for all workers
at their next pick. The name in Host has to be one of the listener's. A request that a browser sends (with Origin or Cookie) needs
X-CSRF-Token for a change, which `GET /api/v1/session` tells."""

_POOL = {"name": "name", "in": "path", "required": True, "schema": text("A pool's name.", minLength=1, maxLength=63)}
_ADDRESS = {"name": "address", "in": "path", "required": True, "description": "A server's address, percent-encoded.",
            "schema": text("A server's address.", minLength=1)}
_ROUTE = {"name": "id", "in": "path", "required": True, "schema": text("A route's id.", minLength=1)}
_IF_MATCH = {"name": "If-Match", "in": "header", "required": False, "description": "Change it only while its ETag is this one.",
             "schema": {"type": "string"}}


def _query(name: str, doc: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": doc, "schema": schema}


def _content(schema: Schema, kind: str = "application/json") -> Schema:
    return {kind: {"schema": schema}}


def _answer(doc: str, schema: Schema | None = None, kind: str = "application/json", **headers: str) -> Schema:
    found: Schema = {"description": doc}
    if schema is not None:
        found["content"] = _content(schema, kind)
    if headers:
        found["headers"] = {name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in headers.items()}
    return found


def _problem(doc: str) -> Schema:
    return _answer(doc, ref("Problem"), "application/problem+json")


_PROBLEMS = {
    400: _problem("Something in the request is not as it should be; `place` says what."),
    401: _problem("There is no token, or a wrong one."),
    403: _problem("The token is a reader's, or a page of another origin makes the request."),
    404: _problem("There is no such pool, server or split."),
    409: _problem("It cannot be done as things are; `detail` says why."),
    412: _problem("The server or split was changed meanwhile: its ETag is another one."),
    415: _problem("The body is not JSON."),
    503: _problem("It cannot be done at the moment."),
}


def _operation(summary: str, answers: dict[int, Schema], problems: tuple[int, ...] = (), parameters: tuple[Schema, ...] = (),
               body: Schema | None = None, is_open: bool = False) -> Operation:
    """`problems` are those besides what any request may meet."""
    numbers = {*problems, *(() if is_open else (401, 403))}
    responses = {str(status): answer for status, answer in answers.items()}
    responses |= {str(status): _PROBLEMS[status] for status in sorted(numbers)}
    responses["default"] = _problem("Another problem, such as 421 for a foreign Host.")
    found: Operation = {"summary": summary, "responses": responses}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": True, "content": _content(body)}
    if is_open:
        found["security"] = []
    return found


_PLAIN = {"type": "string"}
_SPLIT = _answer("The split.", ref("Split"), ETag="Stands for the weights.")
_SERVER = _answer("The server.", ref("Server"), ETag="Stands for what can be changed.")

PATHS: dict[str, dict[str, Operation]] = {
    "/healthz": {"get": _operation("Whether this process answers",
                                   {200: _answer("It does.", _PLAIN, "text/plain")}, is_open=True)},
    "/readyz": {"get": _operation(
        "Whether each pool has a server that may be used, or starts one for the next request",
        {200: _answer("Each has, or does.", _PLAIN, "text/plain"),
         503: _answer("One has none; with a token the answer names it.", _PLAIN, "text/plain")}, is_open=True)},
    "/metrics": {"get": _operation("The numbers for Prometheus", {200: {
        "description": "Prometheus text, or OpenMetrics for who accepts it.",
        "content": _content(_PLAIN, "text/plain") | _content(_PLAIN, "application/openmetrics-text")}})},
    "/api/v1/instance": {"get": _operation("The instance", {200: _answer("It.", ref("Instance"))})},
    "/api/v1/stream": {"get": _operation(
        "What happens, as server-sent events",
        {200: _answer("`snapshot` with an Instance first, `history` with its last minute, then `delta` once a second with what "
                      "has changed, and `event` with an Event as it happens. Last-Event-ID gets the events that were missed.",
                      _PLAIN, "text/event-stream")},
        (503,))},
    "/api/v1/workers": {"get": _operation("The workers", {200: _answer("They.", record(
        "The workers.", workers=array(ref("Worker"), "Each.")))})},
    "/api/v1/pools": {"get": _operation("The pools", {200: _answer("They.", record(
        "The pools.", pools=array(ref("Pool"), "Each.")))})},
    "/api/v1/pools/{name}": {
        "get": _operation("A pool", {200: _answer("It.", ref("Pool"))}, (404,), (_POOL,)),
        "patch": _operation("Set how many servers a pool has that scales", {200: _answer("It.", ref("Pool"))},
                            (400, 404, 409, 415, 503), (_POOL,), ref("Scale")),
    },
    "/api/v1/pools/{name}/roll": {"post": _operation(
        "Replace the servers of a pool that scales by new ones; an event of the kind `rolled` tells what came of it",
        {202: _answer("It is under way.", ref("Pool"))}, (400, 404, 409, 415, 503), (_POOL,), ref("Roll"))},
    "/api/v1/pools/{name}/servers": {
        "get": _operation("The servers of a pool", {200: _answer("They.", record(
            "The servers.", servers=array(ref("Server"), "Each.")))}, (404,), (_POOL,)),
        "post": _operation("Add a server until it is removed or the configuration names it", {
            201: _answer("It was added.", ref("Server"), Location="Its path.", ETag="Stands for what can be changed.")},
            (400, 404, 409, 415, 503), (_POOL,), ref("NewServer")),
    },
    "/api/v1/pools/{name}/servers/{address}": {
        "get": _operation("A server", {200: _SERVER}, (404,), (_POOL, _ADDRESS)),
        "patch": _operation("Change a server's state, weight or limit", {200: _SERVER}, (400, 404, 409, 412, 415, 503),
                            (_POOL, _ADDRESS, _IF_MATCH), ref("Change")),
        "delete": _operation(
            "Remove a server; requests that it has are finished",
            {204: _answer("It was removed.")}, (400, 404, 409, 412, 503),
            (_POOL, _ADDRESS, _IF_MATCH, _query("force", "Remove it though requests are in flight on it.",
                                                {"type": "string", "enum": ["true", "false"]}))),
    },
    "/api/v1/splits": {"get": _operation("The splits of all routes", {200: _answer("They.", record(
        "The splits.", splits=array(ref("Split"), "Each.")))})},
    "/api/v1/splits/{id}": {
        "get": _operation("The split of a route", {200: _SPLIT}, (404,), (_ROUTE,)),
        "patch": _operation("Set weights of a split, all or none", {200: _SPLIT}, (400, 404, 409, 412, 415, 503),
                            (_ROUTE, _IF_MATCH), ref("SplitChange")),
    },
    "/api/v1/events": {"get": _operation(
        "Recent events, oldest first", {200: _answer("They.", record(
            "Events.", events=array(ref("Event"), "Each."), last=integer("The number of the newest event.")))}, (400,),
        (_query("limit", "The most.", integer("A number.", 1, maximum=1000)),
         _query("after", "Only those with a greater number.", integer("A number.", maximum=(1 << 62)))))},
    "/api/v1/config": {"get": _operation("The configuration in force; secrets are masked",
                                         {200: _answer("It.", {"type": "object"})}, (503,))},
    "/api/v1/reload": {"post": _operation("Read the configuration's file anew, as SIGHUP does", {
        202: _answer("It is under way: the generation will be another one if the table of servers changes.",
                     record("Before it.", generation=integer("Of the server table.")))}, (409, 415, 503))},
    "/api/v1/session": {
        "get": _operation("Who the caller is", {200: _answer("The caller.", ref("Session"))}, (403,), is_open=True),
        "post": _operation("Sign a browser in",
                           {200: _answer("A cookie is set.", ref("Session"), **{"Set-Cookie": "For 12 hours."})},
                           (400, 401, 403, 415), body=record("A token.", token=text("It.")), is_open=True),
        "delete": _operation("Sign a browser out", {204: _answer("The cookie is taken back.")}, (403,), is_open=True),
    },
    "/api/v1/openapi.json": {"get": _operation("This document", {200: _answer("It.", {"type": "object"})})},
}

DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {"title": "prefork_lb", "version": __version__, "description": _DESCRIPTION},
    "servers": [{"url": "/"}],
    "security": [{"token": []}, {"session": []}],
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS,
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer", "description": "A token of `admin.token_file`."},
            "session": {"type": "apiKey", "in": "cookie", "name": "prefork_lb_admin",
                        "description": "A browser's, by POST /api/v1/session."},
        },
    },
}
