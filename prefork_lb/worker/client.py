"""A client's connection, as bodies, sending and exchanges see it."""
from __future__ import annotations

from prefork_lb.green.streams import GreenStream
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead, ResponseHead
from prefork_lb.wire.proxy_protocol import SocketAddress
from prefork_lb.worker.service import Service


class Client:
    """What `worker.connection` is. No protocol: translated code reads attributes of a class at their place in memory."""

    __slots__ = ("body_sent", "buffer", "continue_due", "destination", "head", "hub", "is_turned_away", "peer", "service",
                 "source", "started", "stream", "waiting")

    def __init__(self, service: Service, stream: GreenStream, peer: ClientInfo, source: SocketAddress | None,
                 destination: SocketAddress | None) -> None:
        self.service = service
        self.stream = stream
        self.hub = stream.hub
        self.peer = peer
        self.source, self.destination = source, destination
        self.buffer = b""  # received, not used yet
        self.head: RequestHead | None = None  # of the running exchange
        self.body_sent = 0  # bytes of the response's body, without its framing
        self.continue_due = False  # the client waits for 100 Continue
        self.started = self.hub.now  # when the exchange began, or the connection
        self.is_turned_away = False  # its first request is refused, because the client waited too long
        self.waiting: object = None  # the server's stream that the exchange waits for

    def is_gone(self) -> bool:
        """Whether the client has left."""
        raise NotImplementedError

    def relay(self, head: ResponseHead) -> None:
        """Pass an interim response (1xx) on. Raises ClientGone."""
        raise NotImplementedError

    def send_continue(self) -> None:
        """Tell the client to send its body (100), at most once. Raises ClientGone."""
        raise NotImplementedError

    def send(self, data: bytes) -> bool:
        """Send all of `data`. Return whether the client took it at once. Raises ClientGone: it has left, or took nothing for the
        idle timeout."""
        raise NotImplementedError

    def send_last(self, data: bytes) -> None:
        """Send all of `data`, after which this side closes the connection. Raises ClientGone."""
        raise NotImplementedError

    def send_now(self, data: bytes) -> int:
        """Send what the client takes without a wait. Return the number of bytes. Raises ClientGone."""
        raise NotImplementedError

    def linger(self) -> None:
        """Receive and drop for a while after the last response, so that the client can read it; then close."""
        raise NotImplementedError
