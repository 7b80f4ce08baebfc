"""waitress, with bounds that hold against clients that do not mean well.

Each stream of events occupies a thread for as long as its page is open; the others answer at once. A connection costs a buffer:
their number is bounded, and where it is reached the one that has waited longest without a request goes.
"""
from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, TcpWSGIServer, UnixWSGIServer

from prefork_lb.admin.requests import BODY_LIMIT

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

THREADS = 32
_CONNECTIONS = 200
_HEAD_LIMIT = 16 * 1024
_IDLE_S = 60
_REQUEST_S = 20.0  # for a whole request, from the first byte
# A client that takes nothing for so long is gone: the kernel then ends the connection, and with it the thread's wait.
_STUCK_MS = 20_000


class _Channel(HTTPChannel):
    """A connection that knows since when a request has been coming in."""

    begun = 0.0  # 0: no request is incomplete

    def received(self, data: bytes) -> bool:
        taken = super().received(data)
        if self.request is None:
            self.begun = 0.0
        elif not self.begun:
            self.begun = time.time()
        return bool(taken)


class _Bounded(BaseWSGIServer):
    """A server of waitress' that ends connections whose request does not come, and makes room for new connections."""

    channel_class: Any = _Channel
    active_channels: Any  # by descriptor, as waitress keeps them

    def maintenance(self, now: Any) -> None:
        super().maintenance(now)
        for channel in self.active_channels.values():
            if channel.begun and now - channel.begun > _REQUEST_S:
                channel.will_close = True

    def readable(self) -> bool:
        # Only marked: the loop collects descriptors meanwhile, and a new connection would get the number of a closed one.
        staying = [channel for channel in self.active_channels.values() if not channel.will_close]
        waiting = [channel for channel in staying if not channel.requests] if len(staying) >= _CONNECTIONS else []
        if waiting:
            min(waiting, key=lambda channel: channel.last_activity).will_close = True
        return bool(super().readable())


class _Tcp(_Bounded, TcpWSGIServer):
    pass


class _Unix(_Bounded, UnixWSGIServer):
    pass


class AdminServer:
    """Serves an application at a listening socket."""

    def __init__(self, application: WSGIApplication, listener: socket.socket) -> None:
        logging.getLogger("waitress").setLevel(logging.CRITICAL)  # what clients do is no news
        adjustments = Adjustments(
            threads=THREADS, connection_limit=_CONNECTIONS + 10, channel_timeout=_IDLE_S, cleanup_interval=1, ident=None,
            max_request_header_size=_HEAD_LIMIT, max_request_body_size=2 * BODY_LIMIT, inbuf_overflow=BODY_LIMIT,
            outbuf_overflow=1 << 20, outbuf_high_watermark=1 << 20, log_socket_errors=False, asyncore_use_poll=True,
            clear_untrusted_proxy_headers=True, log_untrusted_proxy_headers=False)
        adjustments.socket_options = [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_MS)]
        kind: Any = _Unix if listener.family == socket.AF_UNIX else _Tcp
        self._server = kind(application, {}, True, listener, adj=adjustments, bind_socket=False,
                            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()))

    def run(self) -> None:
        """Serve; does not return."""
        self._server.run()
