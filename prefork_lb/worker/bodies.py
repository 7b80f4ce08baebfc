"""The body of a client's request, as it comes from its connection."""
from __future__ import annotations

from prefork_lb.errors import BadRequest, ClientGone, RequestTimeout
from prefork_lb.green.channel import READABLE
from prefork_lb.green.streams import GreenStream
from prefork_lb.net.stream import Stream, StreamClosed, StreamTimeout
from prefork_lb.proxy.patience import Patience
from prefork_lb.wire.chunked import ChunkedDecoder
from prefork_lb.wire.framing import BY_CHUNKS, BY_LENGTH, Framing
from prefork_lb.wire.head import Fields, HeadLimits
from prefork_lb.worker.client import Client
from prefork_lb.worker.service import ClientTimeouts

# A client that asked for 100 Continue and got none sends its body after a while anyway; curl after one second.
_CONTINUE_AFTER_S = 1.0
_RECEIVE_BYTES = 64 * 1024
_SILENT = "the client sent nothing of its body for too long"


class ClientBody:
    """A body with a length or chunked, as the engine's body source."""

    def __init__(self, connection: Client, framing: Framing, limits: HeadLimits, times: ClientTimeouts,
                 expects_continue: bool) -> None:
        self._connection = connection
        self._left = framing.length
        self._decoder = ChunkedDecoder(BadRequest, limits) if framing.kind is BY_CHUNKS else None
        self._idle_timeout_s = times.idle
        self._patience = Patience(times.body, times.body_rate)
        self._expects_continue = expects_continue
        self.is_whole = framing.kind is BY_LENGTH and not framing.length  # no byte of it is left to receive

    def read(self, limit: int) -> bytes:
        if self.is_whole:
            return b""
        if self._decoder is None:
            data = self._some(min(limit, self._left))
            self._left -= len(data)
            self.is_whole = not self._left
            return data
        while True:
            data = self._decoder.decode(self._some(min(limit, self._decoder.receive_bytes)))
            if self._decoder.done:
                self._connection.buffer = self._decoder.excess + self._connection.buffer
                self.is_whole = True
                return data
            if data:
                return data

    def wait(self, server: Stream, timeout_s: float) -> bool:
        connection = self._connection
        stream = connection.stream
        assert isinstance(server, GreenStream)
        hub = stream.hub
        deadline = hub.now + timeout_s
        while not self.is_whole and not connection.buffer and not stream.ready & READABLE:
            if server.has_input():
                return False
            began = hub.now
            if self._expects_continue:
                if not stream.wait_either(server, began + min(_CONTINUE_AFTER_S, timeout_s)):
                    self._expects_continue = False
                    connection.send_continue()
                    deadline = hub.now + timeout_s  # the client's time begins now, with the 100
                continue
            in_time = stream.wait_either(server, min(deadline, began + self._patience.left_s))
            self._patience.waited(hub.now - began, 0)
            if not in_time:
                raise self._too_late()
        return True

    def trailers(self) -> Fields:
        return self._decoder.trailers if self._decoder else []

    def _some(self, limit: int) -> bytes:
        connection = self._connection
        buffer = connection.buffer
        if buffer:
            if len(buffer) <= limit:
                connection.buffer = b""
                return buffer
            connection.buffer = buffer[limit:]
            return buffer[:limit]
        stream, patience = connection.stream, self._patience
        began = stream.hub.now
        try:
            data = stream.receive(min(limit, _RECEIVE_BYTES), min(self._idle_timeout_s, patience.left_s))
        except StreamTimeout as exc:
            patience.waited(stream.hub.now - began, 0)
            raise self._too_late() from exc
        except StreamClosed as exc:
            raise ClientGone("the client left in the middle of its body") from exc
        if not data:
            raise ClientGone("the client left in the middle of its body")
        patience.waited(stream.hub.now - began, len(data))
        return data

    def _too_late(self) -> RequestTimeout:
        return RequestTimeout(_SILENT if self._patience.left_s > 0 else self._patience.too_slow())
