"""Error pages: short, in the form that the client prefers. They name no server, address or limit."""
from __future__ import annotations

import html
import json
from functools import lru_cache
from http import HTTPStatus

from prefork_lb.errors import CapacityError, OwnAnswer, ProxyError, RefusedByRoute, TooManyRequests, UpstreamError
from prefork_lb.proxy.tracing import Identity
from prefork_lb.routing.serving import NO_PAGES, OwnPages
from prefork_lb.wire.accept import preferred
from prefork_lb.wire.head import Fields

_ALLOW = (b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
_TYPES = ("text/plain", "text/html", "application/json")
# Browsers send some 150 bytes. A head may have 32 KiB of them.
_ACCEPT_BYTES = 512


def reason(status: int) -> str:
    """The phrase of a status code (RFC 9110 15)."""
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"


def error_page(error: ProxyError, accept: str, identity: Identity | None = None,
               own: OwnPages = NO_PAGES) -> tuple[Fields, bytes]:
    """The fields and the body that tell a client of `error`, as plain text, HTML or JSON by its Accept; with the request's ID, if
    it has one. `own` is what the route says of that.

    An upstream's failure names the phase in which it happened (connect, request body, response, body), so that a user can
    tell it to the operator.
    """
    status = error.status
    if isinstance(error, OwnAnswer):
        return _own_answer(error, identity, own)
    if status == 204:
        return [_ALLOW], b""
    if (page := own.by_status.get(status)) is not None:
        content, described = page.content, list(page.fields)
    else:
        content, described = _page(error, accept, identity)
    fields = [*described, (b"Content-Length", b"%d" % len(content)), (b"Cache-Control", b"no-store"), *own.fields]
    if isinstance(error, CapacityError | TooManyRequests):
        fields.append((b"Retry-After", b"%d" % error.retry_after_s))
    if isinstance(error, RefusedByRoute):
        fields += error.fields
    if identity is not None:
        fields.append((b"X-Request-ID", identity.request_id))
    if status == 405:
        fields.append(_ALLOW)
    return fields, content


def _page(error: ProxyError, accept: str, identity: Identity | None) -> tuple[bytes, Fields]:
    """A page of ours, and its type."""
    status = error.status
    title = reason(status)
    detail = f"The server behind this address failed in the phase: {error.phase}." if isinstance(error, UpstreamError) else ""
    request_id = identity.request_id.decode() if identity is not None else ""
    told_id = f"Request ID: {request_id}" if request_id else ""
    if len(accept) > _ACCEPT_BYTES:
        accept = accept[:_ACCEPT_BYTES].rpartition(",")[0]  # the members that are whole
    best = _preferred(accept) if accept else _TYPES[0]
    if best == "application/json":
        values: dict[str, object] = {"status": status, "error": title}
        if detail:
            values["phase"] = error.phase
        if request_id:
            values["request_id"] = request_id
        text = json.dumps(values) + "\n"
    elif best == "text/html":
        heading = f"{status} {html.escape(title)}"
        paragraph = "".join(f"<p>{html.escape(line)}</p>" for line in (detail, told_id) if line)
        text = (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title></head>'
                f"<body><h1>{heading}</h1>{paragraph}</body></html>\n")
    else:
        text = f"{status} {title}\n" + "".join(f"{line}\n" for line in (detail, told_id) if line)
    kind = f"{best}; charset=utf-8" if best != "application/json" else best
    return text.encode(), [(b"Content-Type", kind.encode())]


def _own_answer(answer: OwnAnswer, identity: Identity | None, own: OwnPages) -> tuple[Fields, bytes]:
    fields = [*answer.fields, *own.fields]
    if answer.status not in (204, 304):  # RFC 9110 8.6: no length without content
        fields.append((b"Content-Length", b"%d" % len(answer.body)))
    if identity is not None:
        fields.append((b"X-Request-ID", identity.request_id))
    return fields, answer.body


@lru_cache(maxsize=256)
def _preferred(accept: str) -> str:
    """The type of page that fits best. Clients are few kinds of programs: the same Accept comes again."""
    return preferred(accept, _TYPES)
