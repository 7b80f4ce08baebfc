"""Front end 1: the engine as a WSGI application (PEP 3333), for gunicorn's sync, gthread and gevent workers.

gunicorn has parsed the client's head and decodes its body. We check again what gunicorn let through. WSGI
cannot show that the client has left, relay an interim response, or break a response off so that it does not look whole. For
these we use the client's socket, which gunicorn hands over.
"""
from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prefork_lb.clock import monotonic
from prefork_lb.errors import ClientGone, DownstreamError, InvariantError, ProxyError, TruncatedBody
from prefork_lb.log_summary import summary
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.error_pages import error_page, reason
from prefork_lb.proxy.outbound import NOTHING
from prefork_lb.proxy.refusal_log import tell_refusal
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import NO_HEAD, Ended, Request, TrustCheck
from prefork_lb.wire.framing import BY_LENGTH
from prefork_lb.wire.memo import Memo
from prefork_lb.wsgi.body import WSGIBody
from prefork_lb.wsgi.client import ClientRules, WSGIClient
from prefork_lb.wsgi.environ import RequestHeads, client_info
from prefork_lb.wsgi.pacing import PacedBody, ReplyBody

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

# How long we wait for the rest of a short response before we send what has come.
_REST_WAIT_S = 0.02

log = logging.getLogger("prefork_lb")


class WSGIFrontEnd:
    """The WSGI callable over an engine."""

    def __init__(self, engine: Engine, is_trusted: TrustCheck, rules: ClientRules, ended: Ended | None = None) -> None:
        """`ended` hears of exchanges; None: nobody wants to know of them."""
        self._engine = engine
        self._ended = ended
        self._request_head = RequestHeads(rules.limits)
        self._is_trusted = is_trusted
        self._rules = rules

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        client = WSGIClient(environ, self._rules)
        started = monotonic() if self._ended is not None else 0.0
        request: Request | None = None
        try:
            peer = client_info(environ, client.is_tls, self._is_trusted, client.certificate())
            request = Request(self._request_head(environ), peer, WSGIBody(environ, client, self._rules), client, started=started)
            if self._engine.tells_addresses:
                request.source, request.destination = client.addresses(environ)
            reply = self._engine.exchange(request)
        except ClientGone as exc:
            log.debug("%s", exc)
            start_response(f"{exc.status} {reason(exc.status)}", [])
            self._tell_refused(request, environ, client, started, exc, 0)
            return _nothing(exc)
        except (ProxyError, InvariantError) as exc:
            page = self._refuse(exc, environ, start_response, request)
            self._tell_refused(request, environ, client, started, exc, len(page))
            return iter([page] if page else [])
        except Exception as exc:  # of a site's own policy; gunicorn answers
            self._tell_refused(request, environ, client, started, exc, 0)
            raise
        text = reply.reason.decode("latin-1") or reason(reply.status)
        try:
            start_response(f"{reply.status} {text}", _wsgi_fields([*reply.fields, *reply.added] if reply.added else reply.fields))
        except BaseException as exc:
            reply.close()
            if self._ended is not None and isinstance(exc, Exception):
                request.end(monotonic(), 0, exc, reply)
                self._ended(request)
            raise
        ended, bandwidth = self._ended, request.plan.bandwidth if request.plan is not None else None
        # The lease was given back, and nothing can fail.
        if reply.is_received and ended is None and reply.at_close is None and bandwidth is None:
            return iter((reply.read(),))
        if not reply.is_received:
            client.expect_slow_reader()
        body: ReplyBody = _ReplyBody(reply, client, self._rules.ahead_bytes)
        if bandwidth is not None:
            body = PacedBody(body, bandwidth, monotonic, time.sleep)
        return body if ended is None else _ToldBody(body, request, reply, ended)

    def _refuse(self, exc: ProxyError | InvariantError, environ: Environ, start_response: StartResponse,
                request: Request | None) -> bytes:
        """Begin to answer with an error page. Return its body."""
        error = exc if isinstance(exc, ProxyError) else ProxyError("internal")
        what = f"{environ.get('REQUEST_METHOD')} {environ.get('RAW_URI', '')[:200]}"
        tell_refusal(exc, environ.get("REMOTE_ADDR", ""), what.encode("ascii", "backslashreplace").decode())
        if isinstance(error, DownstreamError):
            # What follows a malformed request on its connection is not to be trusted (RFC 9112 11.2).
            _close_afterwards(start_response)
        accept = environ.get("HTTP_ACCEPT", "")
        if request is None:
            fields, body = error_page(error, accept)
        else:
            fields, body = error_page(error, accept, request.identity, request.pages)
        start_response(f"{error.status} {reason(error.status)}", _wsgi_fields(fields))
        return b"" if environ.get("REQUEST_METHOD") == "HEAD" else body

    def _tell_refused(self, request: Request | None, environ: Environ, client: WSGIClient, started: float, exc: Exception,
                      bytes_out: int) -> None:
        """Tell of an exchange that ends without an answer of a server; without a `request`, its head was refused."""
        if self._ended is not None:
            if request is None:
                peer = client_info(environ, client.is_tls, self._is_trusted)
                request = Request(NO_HEAD, peer, NOTHING, client, started=started)
            request.end(monotonic(), bytes_out, exc, None)
            self._ended(request)


class _ReplyBody:
    """The response's body as WSGI iterates it. `close` gives the lease back, whatever happened before."""

    def __init__(self, reply: Reply, client: WSGIClient, ahead_bytes: int) -> None:
        self._reply = reply
        self._client = client
        self._ahead_bytes = ahead_bytes
        self._broken: TruncatedBody | None = None
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._begun:
            self._begun = True
            if not self._reply.is_ready:
                return b""  # makes gunicorn send the head now: the body may come much later, as with server-sent events
        try:
            if self._broken is not None:
                raise self._broken
            data = self._read()
        except ClientGone as exc:
            log.debug("%s", exc)
            raise _abort(exc) from exc
        except TruncatedBody as exc:
            summary.tell(logging.WARNING, "broken off", "response broken off: %s", exc)
            # Without a length, a normal close could look to the client like a whole body.
            if self._reply.framing.kind is not BY_LENGTH:
                self._client.reset()
            raise _abort(exc) from exc
        if not data:
            raise StopIteration
        return data

    def _read(self) -> bytes:
        """The next data, and what can be received ahead: while gunicorn sends to a slow client, this worker holds the lease."""
        reply, most = self._reply, self._ahead_bytes
        data = reply.read()
        if len(data) >= most or reply.is_received:
            return data
        left = reply.left_bytes
        # When the rest is known to be short, wait for it a little: the lease is then given back before the send to the client.
        wait_s = _REST_WAIT_S if left is not None and len(data) + left <= most else 0.0
        pieces, size = [data], len(data)
        try:
            while size < most and not reply.is_received and (data := reply.take(most - size, wait_s)):
                pieces.append(data)
                size += len(data)
        except TruncatedBody as exc:
            self._broken = exc  # what came before the break goes out first
        return b"".join(pieces)

    def close(self) -> None:
        self._reply.close()


class _ToldBody:
    """A response's body, whose end is told to whoever wants to know."""

    def __init__(self, body: ReplyBody, request: Request, reply: Reply, ended: Ended) -> None:
        self._body = body
        self._request, self._reply, self._ended = request, reply, ended
        self._sent = 0
        self._is_finished = self._is_told = False
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            data = next(self._body)
        except StopIteration:
            self._is_finished = True
            raise
        except OSError as exc:
            self._error = exc.__cause__ if isinstance(exc.__cause__, ProxyError) else exc
            raise
        self._sent += len(data)
        return data

    def close(self) -> None:
        self._body.close()
        if self._is_told:
            return
        self._is_told = True
        error = self._error
        if not self._is_finished and error is None:
            # The server asks for the next data when it has sent the last; it does not when that failed.
            error = ClientGone("the client left, or took no byte of the response for too long")
        self._request.end(monotonic(), self._sent, error, self._reply)
        self._ended(self._request)


def _nothing(exc: ClientGone) -> Iterator[bytes]:
    """A response that aborts before its first data, so that gunicorn sends no head.

    gunicorn writes its access log once it iterates a response; of an exception before that it writes no line.
    """
    def abort() -> bytes:
        raise _abort(exc) from exc

    return iter(abort, b"")


def _abort(exc: ProxyError) -> ConnectionResetError:
    # gunicorn closes the client's connection at an OSError, without an answer and without a traceback for this number.
    return ConnectionResetError(errno.ECONNRESET, str(exc))


def _close_afterwards(start_response: StartResponse) -> None:
    """Make gunicorn close the client's connection after this response. WSGI has no way to ask for it."""
    force_close = getattr(getattr(start_response, "__self__", None), "force_close", None)
    if force_close is not None:
        force_close()


def _text(field: tuple[bytes, bytes]) -> tuple[str, str]:
    return field[0].decode("latin-1"), field[1].decode("latin-1")


_FIELD_BYTES = 400  # of the objects of a field, its key and its text, without their bytes
_remembered_text = Memo[tuple[bytes, bytes], tuple[str, str]](
    _text, size=lambda field: _FIELD_BYTES + 2 * (len(field[0]) + len(field[1])), most_bytes=1 << 20, largest=1500)


def _wsgi_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [_remembered_text(field) for field in fields]
