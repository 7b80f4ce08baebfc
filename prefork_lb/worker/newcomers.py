"""Makes a client's connection from an accepted socket: the client's address, and plain or TLS."""
from __future__ import annotations

import logging
import os
import socket
import ssl
from functools import lru_cache
from typing import Final

from prefork_lb.green.channel import READ
from prefork_lb.green.streams import GreenStream
from prefork_lb.green.tls_stream import TLSStream
from prefork_lb.net.address import unmapped
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.proxy_protocol import SocketAddress
from prefork_lb.worker.connection import Connection
from prefork_lb.worker.service import Service, client_info

_REMEMBERED: Final = 4096  # hosts of clients

log = logging.getLogger("prefork_lb")


class Newcomers:
    """Makes the connections of one listening socket."""

    def __init__(self, service: Service, listener: socket.socket, context: ssl.SSLContext | None, expects_header: bool) -> None:
        """`context`: clients speak TLS. `expects_header`: trusted peers begin with a PROXY header."""
        self._service = service
        self._context = context
        self._expects_header = expects_header
        self._tells_addresses = service.engine is not None and service.engine.tells_addresses
        self._family = listener.family
        self._is_unix = listener.family == socket.AF_UNIX
        self._scheme = b"https" if context else b"http"
        self._name: SocketAddress | None = None if self._is_unix else listener.getsockname()[:2]
        self._peer = lru_cache(maxsize=_REMEMBERED)(self._look_up_peer)

    def begin(self, descriptor: int, host: str, port: int) -> Connection | None:
        """Make the connection of an accepted client; the caller runs its `serve`. None when the client has left."""
        service = self._service
        source: SocketAddress | None = None
        destination = self._name
        if self._is_unix:
            # Its clients are on this host, with the permission to use the socket.
            peer = client_info("", self._scheme, 0, True)
        else:
            peer = self._peer(host)
            source = peer.address, port
        try:
            stream = self._stream(descriptor)
        except OSError as exc:
            log.debug("a client left at once: %s", exc)
            return None
        if self._tells_addresses and not self._is_unix:
            # A listener that is bound to all addresses does not have the one that the client used.
            destination = stream.connected.getsockname()[:2]
        return Connection(service, stream, peer, source, destination, self._expects_header and peer.trusted)

    def _stream(self, descriptor: int) -> GreenStream:
        """Raises OSError, with the descriptor closed."""
        if self._context is None:
            try:
                stream = GreenStream(self._service.hub, descriptor)
            except OSError:
                os.close(descriptor)
                raise
            stream.ready = READ  # most clients send their request at once
            return stream
        connected = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, descriptor)
        try:
            return TLSStream(self._service.hub, connected, self._context, server_side=True)
        except OSError:
            connected.close()
            raise

    def _look_up_peer(self, host: str) -> ClientInfo:
        host = unmapped(host)
        return client_info(host, self._scheme, self._name[1] if self._name else 0, self._service.is_trusted(host))
