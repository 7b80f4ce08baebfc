"""One request of a client's connection, from its head to the last byte of its answer."""
from __future__ import annotations

import logging
from typing import Final

from prefork_lb.errors import ClientGone, DownstreamError, Overloaded, ProxyError, TruncatedBody
from prefork_lb.green.streams import GreenStream
from prefork_lb.log_summary import summary
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from prefork_lb.proxy.error_pages import error_page
from prefork_lb.proxy.outbound import NOTHING
from prefork_lb.proxy.refusal_log import tell_refusal
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import NO_HEAD, BodySource, FieldPairs, Request
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.framing import BY_CHUNKS, BY_CLOSE, BY_NOTHING, NO_BODY, request_framing
from prefork_lb.wire.head import CONNECTION, EXPECT, FRAMES_BODY, UPGRADE, RequestHead
from prefork_lb.worker.bodies import ClientBody
from prefork_lb.worker.client import Client
from prefork_lb.worker.pacing import send_paced
from prefork_lb.worker.response_heads import reply_block, status_line
from prefork_lb.worker.sending import send_chunked, send_plain
from prefork_lb.worker.tunnel import offered, run_tunnel, switch_block
from prefork_lb.worker.wsgi_call import WSGICall

# When the answer comes before the whole request body, the worker drops up to this much of the body to keep the connection.
_DROPPED_BYTES: Final = 64 * 1024

log = logging.getLogger("prefork_lb")


def answer(client: Client) -> bool:
    """Answer the request whose head is `client.head`. Return whether the connection can serve another one.

    Raises ClientGone; the lease was given back then.
    """
    service, head = client.service, client.head
    assert head is not None
    body: ClientBody | None = None
    source: BodySource = NOTHING
    request: Request | None = None
    try:
        if service.overload.is_high and service.overload.must_refuse() or client.is_turned_away:
            client.is_turned_away = False
            raise Overloaded("the worker has more to do than it can")
        notable = head.section.notable
        if notable & FRAMES_BODY:
            framing = request_framing(head)
            if framing is not NO_BODY:
                client.continue_due = head.minor == 1 and notable & EXPECT != 0
                source = body = ClientBody(client, framing, service.limits, service.times, client.continue_due)
        engine = service.engine
        if engine is None:
            return _call_wsgi(client, head, body)
        request = Request(head, client.peer, source, client, client.source, client.destination, client.started)
        if client.continue_due:
            request.relays_continue = True
        elif body is None and notable & UPGRADE:
            request.upgrade = offered(head)
        reply = engine.exchange(request)
    except ClientGone as exc:
        _tell_end(client, request, 0, exc)
        raise
    except Exception as exc:  # a site's own policy may raise anything: the client gets an answer, the log the traceback
        return refuse(client, exc, body, not isinstance(exc, DownstreamError), request)
    try:
        if reply.status == 101:
            return _tunnel(client, request, reply)
        return _respond(client, request, reply, body)
    finally:
        reply.close()


def _respond(client: Client, request: Request, reply: Reply, body: ClientBody | None) -> bool:
    service, head, plan = client.service, request.head, request.plan
    kind = reply.framing.kind
    block = reply_block(reply, service.date)
    if reply.added:
        block += field_lines(reply.added)
    chunked = kind is BY_CHUNKS
    goes_on, ends_with_connection = True, False
    if head.minor == 0 or kind is BY_CLOSE or not service.keeps or body is not None or head.section.notable & CONNECTION:
        chunked = chunked and head.minor == 1
        goes_on = (kind is not BY_CLOSE and (chunked or kind is not BY_CHUNKS) and service.keeps
                   and head.is_persistent and (body is None or _is_used_up(client, body)))
        if not goes_on:
            block += b"Connection: close\r\n"
        elif head.minor == 0:
            block += b"Connection: keep-alive\r\n"
        # A body that ends with the connection looks whole to the client whenever the connection ends. So until it is whole, each
        # end is a reset: the server breaks off, the client takes nothing, the worker is killed.
        ends_with_connection = kind is BY_CLOSE or (kind is BY_CHUNKS and not chunked)
        if ends_with_connection:
            client.stream.reset_at_close(True)
    block += b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"
    client.body_sent = 0
    error: Exception | None = None
    try:
        if kind is BY_NOTHING:
            client.send(block)
        elif plan is not None and plan.bandwidth is not None:
            send_paced(client, reply, block, plan.bandwidth, chunked)
        elif chunked:
            send_chunked(client, reply, block)
        else:
            # The end leaves with the last bytes where the client has said that it sends nothing more.
            send_plain(client, reply, block, not goes_on and body is None and not ends_with_connection and not head.is_persistent)
        if ends_with_connection:
            client.stream.reset_at_close(False)
    except TruncatedBody as exc:
        error = exc
        summary.tell(logging.WARNING, "broken off", "response broken off: %s", exc)
        return False
    except Exception as exc:
        error = exc
        raise
    finally:
        if service.ended is not None:
            _tell_end(client, request, client.body_sent, error, reply)
        error = None  # it refers to this frame: the last piece of the body would stay until the garbage collector comes
    service.requests += 1
    if not goes_on and body is not None and not body.is_whole:
        client.linger()
    return goes_on


def _is_used_up(client: Client, body: ClientBody) -> bool:
    """Whether the body has been read to its end, so that the next request can follow. Drops what has come of a small rest."""
    if client.continue_due and not body.is_whole:
        return False  # the client may send the body or leave it out (RFC 9110 10.1.1)
    dropped = 0
    while not body.is_whole and dropped < _DROPPED_BYTES and client.buffer:
        dropped += len(body.read(_DROPPED_BYTES))
    return body.is_whole


def refuse(client: Client, exc: Exception, body: ClientBody | None, may_go_on: bool, request: Request | None = None) -> bool:
    """Answer with an error page. Return whether the connection can serve another request. Raises ClientGone.

    `request` is the one that is refused, if it came so far.
    """
    service, head = client.service, client.head
    error = exc if isinstance(exc, ProxyError) else ProxyError("internal")
    is_overload = isinstance(error, Overloaded)  # Overload logs these; they come in masses, so each must be cheap
    if not is_overload:
        what = b"%b %b" % (head.method, head.target[:200]) if head else b"a request"
        tell_refusal(exc, client.peer.address, what.decode("ascii", "backslashreplace"))
    accept = b", ".join(head.index.get(b"accept", ())).decode("latin-1") if head and not is_overload else ""
    if request is None:
        fields, page = error_page(error, accept)
    else:
        fields, page = error_page(error, accept, request.identity, request.pages)
    goes_on = (may_go_on and head is not None and service.keeps and head.is_persistent
               and (body is None or _is_used_up_safely(client, body)))
    block = status_line(error.status) + field_lines(fields) + b"Date: %b\r\n" % service.date()
    if not goes_on:
        block += b"Connection: close\r\n"
    elif head is not None and head.minor == 0:
        block += b"Connection: keep-alive\r\n"
    if head is not None and head.method == b"HEAD":
        page = b""
    try:
        client.send(block + b"\r\n" + page)
    except ClientGone as gone:
        _tell_end(client, request, 0, gone, page=fields)
        raise
    _tell_end(client, request, len(page), exc, page=fields)
    service.requests += 1
    if not goes_on and head is not None:
        client.linger()
    return goes_on


def _is_used_up_safely(client: Client, body: ClientBody) -> bool:
    try:
        return _is_used_up(client, body)
    except DownstreamError:
        return False


def _tunnel(client: Client, request: Request, reply: Reply) -> bool:
    server = reply.server
    assert isinstance(server, GreenStream)
    data = reply.read()  # came with the head
    try:
        client.send(switch_block(reply) + data)
    except ClientGone as exc:
        _tell_end(client, request, 0, exc, reply)
        raise
    sent = len(data)
    early, client.buffer = client.buffer, b""
    own = request.plan.settings if request.plan is not None else None
    idle_s = client.service.times.idle if own is None else own.timeouts.idle
    try:
        if early:
            server.send(early, idle_s)
        to_server, to_client = run_tunnel(client.stream, server, idle_s)
        request.bytes_in, sent = len(early) + to_server, sent + to_client
    except (StreamClosed, StreamTimeout) as exc:
        log.debug("tunnel ended: %s", exc)
    finally:
        reply.end_tunnel()
    _tell_end(client, request, sent, None, reply)
    client.service.requests += 1
    return False


def _call_wsgi(client: Client, head: RequestHead, body: ClientBody | None) -> bool:
    service = client.service
    call = WSGICall(client, head, body, service)
    try:
        goes_on = call.run(head.is_persistent and service.keeps)
    except ClientGone:
        client.stream.reset()  # the application may have failed in the middle of a body that ends with the connection
        raise
    if goes_on and body is not None:
        goes_on = _is_used_up_safely(client, body)
    _tell_end(client, None, call.sent, page=call.fields, status=call.status)
    service.requests += 1
    return goes_on


def _tell_end(client: Client, request: Request | None, bytes_out: int, error: Exception | None = None, reply: Reply | None = None,
              page: FieldPairs = (), status: int = 0) -> None:
    """Tell whoever wants to know that an exchange is over. Without a `request` it did not come so far."""
    service = client.service
    if service.ended is None:
        return
    if request is None:
        request = Request(client.head or NO_HEAD, client.peer, NOTHING, client, client.source, client.destination, client.started)
    request.end(service.hub.clock(), bytes_out, error, reply, page, status)
    service.ended(request)
