"""The answers of the API: JSON, and problems as RFC 9457 has them."""
from __future__ import annotations

from typing import Any

import msgspec
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response

Headers = dict[str, str]


class Problem(Exception):
    """A request that is not done. The client gets the status and why."""

    def __init__(self, status: int, detail: str, place: str = "", headers: Headers | None = None) -> None:
        """`place` is the part of the request that is meant, such as "weight"."""
        super().__init__(detail)
        self.status, self.detail, self.place, self.headers = status, detail, place, headers or {}


def json_response(value: Any, status: int = 200, headers: Headers | None = None) -> Response:
    """The value as JSON; bytes are JSON already."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(body, status, headers, content_type="application/json")


def problem_response(status: int, detail: str, place: str = "", headers: Headers | None = None) -> Response:
    """A problem as application/problem+json."""
    document = {"type": "about:blank", "title": HTTP_STATUS_CODES.get(status, "Unknown"), "status": status, "detail": detail}
    if place:
        document["place"] = place
    return Response(msgspec.json.encode(document), status, headers, content_type="application/problem+json")


def of_exception(exc: HTTPException) -> Response:
    """werkzeug's exceptions, such as 404 and 405, as problems."""
    headers = {"Allow": ", ".join(sorted(exc.valid_methods))} if isinstance(exc, MethodNotAllowed) and exc.valid_methods else None
    return problem_response(exc.code or 500, exc.description or "", headers=headers)
