"""One client's connection: its requests one after the other, each answered before the next is looked at."""
from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from prefork_lb.errors import BadRequest, ClientGone, DownstreamError, HeadTooLarge, RequestTimeout, TargetTooLong
from prefork_lb.green.channel import BROKEN, HALF_CLOSED, READABLE
from prefork_lb.green.streams import GreenStream
from prefork_lb.green.tls_stream import TLSStream
from prefork_lb.net.address import unmapped
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from prefork_lb.proxy.refusal_log import tell_refusal
from prefork_lb.wire import proxy_protocol
from prefork_lb.wire.certificates import client_certificate
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import ResponseHead
from prefork_lb.wire.parse import head_end
from prefork_lb.wire.proxy_protocol import SocketAddress
from prefork_lb.worker.client import Client
from prefork_lb.worker.exchange import answer, refuse
from prefork_lb.worker.response_heads import status_line
from prefork_lb.worker.service import Service, client_info

_RECEIVE_BYTES: Final = 16 * 1024
_CR: Final = b"\r"[0]
_PROXY_HEADER_BYTES: Final = 8 * 1024  # more than `proxy_protocol` takes for a header
# A client that ended its side may still want the answer (RFC 9112 9.6), or may have left: TCP shows no difference. Most
# servers give up at once. We wait this long, for an answer that is nearly there.
_HALF_CLOSED_GRACE_S: Final = 0.25
# How long, and how many bytes, the worker receives and drops after a response that ends the connection early. A close with
# unread bytes makes the kernel send a reset, and the client may lose the response by it (RFC 9112 9.6).
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
# A connection that was used not long ago may have a request on its way when the worker ends.
_RECENT_S: Final = 1.0

log = logging.getLogger("prefork_lb")


class Connection(Client):
    """The client's stream, the bytes received and not used yet, and the running exchange."""

    __slots__ = ("_ended_at", "_expects_header", "_head_deadline", "_in_exchange", "_seen")

    def __init__(self, service: Service, stream: GreenStream, peer: ClientInfo, source: SocketAddress | None,
                 destination: SocketAddress | None, expects_header: bool) -> None:
        """`expects_header`: a PROXY header comes first. `serve` is to be run as a job."""
        super().__init__(service, stream, peer, source, destination)
        self._expects_header = expects_header
        self._seen = 0  # so many bytes of the buffer were searched, and no head ends in them
        self._head_deadline = 0.0  # for the head that has begun to come; 0: none has
        self._in_exchange = True
        self._ended_at = 0.0  # when the client's side was seen to have ended; 0: not yet
        stream.owner = self
        service.add(self)

    # -- what the hub tells ------------------------------------------------------------------------------------

    def on_events(self, events: int) -> None:
        if not self._in_exchange:
            self._in_exchange = True
            self.hub.run_job(self.serve)
        elif events & (HALF_CLOSED | BROKEN):
            self._left(events)

    def on_deadline(self) -> None:
        if not self._in_exchange:
            if self._head_deadline:
                self._in_exchange = True
                self.hub.run_job(self._head_is_late)
            else:
                self.close()

    def _left(self, events: int) -> None:
        if not self._ended_at:
            self._ended_at = self.hub.now
        if events & BROKEN:
            self._break_off()
        else:
            self.hub.call_at(self.hub.now + _HALF_CLOSED_GRACE_S, self._break_off)

    def _break_off(self) -> None:
        server = self.waiting
        if isinstance(server, GreenStream):
            server.break_off()

    # -- what the engine asks ----------------------------------------------------------------------------------

    def is_gone(self) -> bool:
        ready = self.stream.ready
        if ready & BROKEN or self.stream.descriptor < 0:
            return True
        if not ready & HALF_CLOSED:
            return False
        now = self.hub.now
        if not self._ended_at:
            # The client ended its side before the wait began, so no event will come.
            self._left(HALF_CLOSED)
        return now - self._ended_at >= _HALF_CLOSED_GRACE_S

    def relay(self, head: ResponseHead) -> None:
        if self.head is None or self.head.minor == 0:
            return  # RFC 9110 15.2: HTTP/1.0 has no interim responses
        if head.status == 100:
            self.send_continue()
        else:
            self.send(status_line(head.status, head.reason) + field_lines(head.fields) + b"\r\n")

    def send_continue(self) -> None:
        """Tell the client to send its body, once."""
        if self.continue_due:
            self.continue_due = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send(self, data: bytes) -> bool:
        """Send to the client. Return whether it took all at once.

        Raises ClientGone when the client has left, or takes nothing for the idle timeout.
        """
        try:
            return self.stream.send(data, self.service.times.idle)
        except StreamTimeout as exc:
            raise ClientGone("the client took no byte of the response for too long") from exc
        except StreamClosed as exc:
            raise ClientGone(f"the client left: {exc}") from exc

    def send_last(self, data: bytes) -> None:
        """Send the last bytes before `close`. Raises ClientGone as `send`."""
        try:
            self.stream.send_last(data, self.service.times.idle)
        except StreamTimeout as exc:
            raise ClientGone("the client took no byte of the response for too long") from exc
        except StreamClosed as exc:
            raise ClientGone(f"the client left: {exc}") from exc

    def send_now(self, data: bytes) -> int:
        """Send what the client takes without a wait. Return the number of bytes. Raises ClientGone when the client has left."""
        try:
            return self.stream.send_now(data)
        except StreamClosed as exc:
            raise ClientGone(f"the client left: {exc}") from exc

    # -- requests ----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Answer the requests that have come, until no whole request is left."""
        try:
            if isinstance(self.stream, TLSStream) and not self.stream.is_secured:
                if self.stream.ready & (HALF_CLOSED | BROKEN):
                    raise StreamClosed("the client left before the handshake")
                if self._expects_header:
                    self.stream.take_preamble(self._proxy_header_length, _PROXY_HEADER_BYTES, self.service.times.head)
                self.stream.handshake(self.service.times.head)
                if (certificate := client_certificate(*self.stream.shown())) is not None:
                    self.peer = replace(self.peer, certificate=certificate)
            while self._next_head():
                if not answer(self):
                    self.close()
                    return
                if not self.buffer and not self.stream.ready & READABLE:
                    self._wait_for_client()
                    return
                self.hub.turns.share()  # requests that came together may all be answered without a wait
        except (StreamClosed, StreamTimeout, ClientGone) as exc:
            log.debug("%s: %s", self.peer.address, exc)
            self.close()
        except DownstreamError as exc:
            if self._expects_header and isinstance(self.stream, TLSStream):
                # The client has no keys yet with which it could read an answer.
                tell_refusal(exc, self.peer.address, "a connection")
                self.close()
                return
            self._refuse_head(exc)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._in_exchange = True  # no further event starts a job
        self.service.remove(self)
        self.stream.close()

    def turn_away(self) -> None:
        """Refuse a client that waited too long. It gets an answer, or over TLS a close: an answer would take a handshake."""
        if isinstance(self.stream, TLSStream):
            self.close()
        else:
            self.is_turned_away = True
            self.hub.run_job(self.serve)

    def end_soon(self) -> None:
        """The worker ends: close the idle connection. If it was used just now, wait a little: a request may be on its way."""
        if not self._in_exchange and not self._head_deadline:
            stream = self.stream
            self.hub.arm(stream, max(self.started + _RECENT_S, self.hub.now))

    def linger(self) -> None:
        """Receive and drop for a while after the last response, so that the client can read it; then close."""
        stream = self.stream
        stream.shut_down()
        left = _LINGER_BYTES
        until = self.hub.now + _LINGER_S
        try:
            while left > 0 and (time_s := until - self.hub.now) > 0:
                data = stream.receive(_RECEIVE_BYTES, time_s)
                if not data:
                    break
                left -= len(data)
        except (StreamClosed, StreamTimeout):
            pass  # the client sends no more, or has left
        self.close()

    def _head_is_late(self) -> None:
        self._refuse_head(RequestTimeout("the client sent no whole head in time"))

    def _refuse_head(self, exc: DownstreamError) -> None:
        try:
            refuse(self, exc, None, may_go_on=False)
        except ClientGone as gone:
            log.debug("%s: %s", self.peer.address, gone)
        self.linger()

    def _next_head(self) -> bool:
        """Find the next head in what has come.

        False when there is none: the connection then waits for the client without a greenlet, or is closed.
        """
        stream, service = self.stream, self.service
        self.head = None  # what is refused from here on is no answer to the request before
        while True:
            buffer = self.buffer
            if buffer:
                if self._expects_header:
                    if self._read_proxy_header():
                        continue
                else:
                    if buffer[:2] == b"\r\n" and buffer[2:4] != b"\r\n":
                        self.buffer, self._seen = buffer[2:], 0  # RFC 9112 2.2: an empty line before a request is ignored
                        continue
                    end = buffer.find(b"\r\n\r\n", max(self._seen - 3, 0)) + 4
                    if end >= 4:
                        self._begin(buffer, end)
                        return True
                    self._check_size(buffer)
                self.hub.turns.share()  # over TLS each byte may come in a record of its own
            data = stream.receive_now(_RECEIVE_BYTES) if stream.ready & READABLE else None
            if data is None:
                self._wait_for_client()
                return False
            if not data:
                if buffer:
                    log.debug("%s: the client left in the middle of a head", self.peer.address)
                self.close()
                return False
            if not buffer and not self._expects_header and data[0] != _CR and (end := data.find(b"\r\n\r\n") + 4) >= 4:
                self._begin(data, end)  # as nearly always: a whole head at once
                return True
            if not self._head_deadline:
                self._head_deadline = self.hub.now + service.times.head
            self.buffer = buffer + data if buffer else data

    def _begin(self, buffer: bytes, end: int) -> None:
        self._seen = 0
        self._head_deadline = 0.0
        self.started = self.hub.now
        if end == len(buffer):
            self.buffer = b""
        else:
            buffer, self.buffer = buffer[:end], buffer[end:]
        self.head = self.service.parse(buffer)

    def _check_size(self, buffer: bytes) -> None:
        limits = self.service.limits
        head_end(buffer, BadRequest, self._seen)  # refuses lines that end with LF alone
        self._seen = len(buffer)
        if self._seen > limits.line_bytes and b"\n" not in buffer[:limits.line_bytes + 2]:
            raise TargetTooLong(f"the request line has more than {limits.line_bytes} bytes")
        if self._seen > limits.head_bytes:
            raise HeadTooLarge(f"the head has more than {limits.head_bytes} bytes")

    def _wait_for_client(self) -> None:
        stream, service = self.stream, self.service
        self.head = None  # kilobytes, unless the memo shares the head
        if self._head_deadline:
            deadline = self._head_deadline
        elif service.closing:
            deadline = self.hub.now + _RECENT_S
        else:
            deadline = self.hub.now + (service.times.keepalive if service.keeps else service.times.head)
        self._in_exchange = False
        self.hub.arm(stream, deadline)

    def _read_proxy_header(self) -> bool:
        """Take the PROXY header off the buffer. Return False while it is not whole."""
        length = self._proxy_header_length(self.buffer)
        if length is None:
            return False
        self.buffer = self.buffer[length:]
        if not self.buffer:
            self._head_deadline = 0.0
        return True

    def _proxy_header_length(self, data: bytes) -> int | None:
        """Go by the PROXY header at the front of `data`. Return how long it is, None while it is not whole."""
        found = proxy_protocol.parse_proxy_header(data)
        if found is None:
            return None
        self._expects_header = False
        if found.source is not None:
            self.source, self.destination = found.source, found.destination
            address = unmapped(found.source[0])
            port = found.destination[1] if found.destination else self.peer.port
            self.peer = client_info(address, self.peer.scheme, port, self.service.is_trusted(address))
        return found.length
