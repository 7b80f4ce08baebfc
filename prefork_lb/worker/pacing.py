"""A response's body on its way to a client whose route limits its bandwidth.

The response waits by itself, so no time limit runs meanwhile: that of a slow client begins when the client does not take what is
sent. As for a slow client the worker receives ahead, up to `ClientTimeouts.ahead` bytes, and gives the server back when it has
all. The kernel passes nothing on by itself here: it knows no pace.
"""
from __future__ import annotations

from collections.abc import Callable

from prefork_lb.errors import TruncatedBody
from prefork_lb.green.channel import READABLE
from prefork_lb.green.streams import GreenStream
from prefork_lb.proxy.pacing import Pace
from prefork_lb.proxy.reply import Reply
from prefork_lb.routing.serving import Bandwidth
from prefork_lb.wire.chunked import encode_chunk, encode_last_chunk
from prefork_lb.wire.fields import allowed_trailers
from prefork_lb.worker.client import Client
from prefork_lb.worker.sending import wait_for_room

_PIECE_BYTES = 64 * 1024


def send_paced(client: Client, reply: Reply, block: bytes, bandwidth: Bandwidth, chunked: bool) -> None:
    """Send the head's `block` at once, and the body at its pace. Raises ClientGone, TruncatedBody."""
    client.send(block)
    _Sending(client, reply, bandwidth, encode_chunk if chunked else bytes).run()
    if chunked:
        client.send(encode_last_chunk(allowed_trailers(reply.trailers)))


class _Sending:
    """Of one body."""

    def __init__(self, client: Client, reply: Reply, bandwidth: Bandwidth, frame: Callable[[bytes], bytes]) -> None:
        self._client, self._reply, self._frame = client, reply, frame
        self._hub = client.hub
        self._pace = Pace(bandwidth, self._hub.clock())
        self._waiting = bytearray()  # received, and not sent
        self._broken: TruncatedBody | None = None  # the server broke off behind what is waiting

    def run(self) -> None:
        while data := self._reply.read():
            self._put(data)
            while self._waiting:
                self._hub.turns.share()
                self._receive_ahead()
                self._send()
            if self._broken is not None:
                raise self._broken

    def _put(self, data: bytes) -> None:
        self._client.body_sent += len(data)
        self._waiting += self._frame(data)

    def _server(self) -> GreenStream | None:
        """The server, if more of the body may be received now."""
        if self._reply.is_received or self._broken is not None or len(self._waiting) >= self._client.service.times.ahead:
            return None
        server = self._reply.server
        assert isinstance(server, GreenStream)
        return server

    def _receive_ahead(self) -> None:
        while (server := self._server()) is not None and server.ready & READABLE:
            try:
                data = self._reply.take(self._client.service.times.ahead - len(self._waiting))
            except TruncatedBody as exc:
                self._broken = exc  # the client gets what came before the cut
                return
            if data:
                self._put(data)

    def _send(self) -> None:
        """Send a piece, or wait for its time."""
        hub, pace, waiting, server = self._hub, self._pace, self._waiting, self._server()
        wanted = min(len(waiting), _PIECE_BYTES)
        count = pace.most(wanted, hub.clock())
        if not count:
            if server is None:
                hub.sleep(pace.wait_s(wanted))
            else:
                server.wait_readable(hub.now + pace.wait_s(wanted))
            return
        sent = self._client.send_now(bytes(waiting[:count]))
        del waiting[:sent]
        pace.spend(sent)
        if sent < count:
            wait_for_room(self._client, server)
