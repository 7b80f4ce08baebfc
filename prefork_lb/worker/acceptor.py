"""New client connections, divided evenly among the workers.

All workers wait for the same listening sockets, and the kernel wakes them all. Whoever is quickest would get most; with
SO_REUSEPORT, chance would divide. So a worker that has more connections than a sibling lets a new one lie for a moment, in
which the sibling takes it. If nobody does (it is busy, or stopped), it is taken after all: no client waits for fairness.
"""
from __future__ import annotations

import errno
import logging
import socket
import ssl
from typing import Any

from prefork_lb.green.streams import GreenStream, TLSStream
from prefork_lb.log_summary import summary
from prefork_lb.net.address import unmapped
from prefork_lb.net.descriptors import Descriptors
from prefork_lb.wire.proxy_protocol import SocketAddress
from prefork_lb.worker.connection import Connection
from prefork_lb.worker.pending import PendingConnections
from prefork_lb.worker.service import Service, client_info
from prefork_lb.worker.setup import SiblingClients

_ACCEPTS_AT_ONCE = 8
_ALL_AT_ONCE = 4096
_STANDING_S = 0.25
_TAKES_ALL_S = 5.0
_TAKE_ALL_EVERY_S = 0.02
_YIELD_S = 0.001  # the shortest wait that epoll knows
_MOST_YIELD_S = 0.01  # for a sibling that does not come
_FULL_PAUSE_S = 0.05
_SLACK = 3  # connections more than a sibling's that are no reason to wait
_OUT_OF_FILES_PAUSE_S = 0.1
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger("prefork_lb")


class Acceptor:
    """Takes the connections of one listening socket."""

    def __init__(self, service: Service, listener: Any, context: ssl.SSLContext | None, siblings: SiblingClients | None,
                 most: int, expects_header: bool, descriptors: Descriptors) -> None:
        """`listener` is gunicorn's. `most`: no more connections are taken while the worker has so many; `expects_header`:
        trusted peers begin with a PROXY header; `descriptors`: those of the worker."""
        self._service = service
        self._hub = service.hub
        self._listener: socket.socket = listener.sock
        self._context = context
        self._siblings = siblings
        self._most = most
        self._expects_header = expects_header
        self._descriptors = descriptors
        self._tells_addresses = service.engine is not None and service.engine.tells_addresses
        self._is_unix = self._listener.family == socket.AF_UNIX
        self._scheme = b"https" if context else b"http"
        self._yields_until = 0.0
        self._standing_since = 0.0  # when the listening socket's queue was not emptied for the first time; 0: it was
        self._takes_all, self._takes_all_until = False, 0.0
        self._pending = PendingConnections(service.hub, service.overload)
        self._stopped = False
        self._pause_number = 0
        self._paused = False
        self._listener.setblocking(False)
        self._name: SocketAddress | None = None if self._is_unix else self._listener.getsockname()[:2]
        service.on_end.append(self.look_again)
        self._hub.watch(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take no more."""
        self._stopped = True
        self._hub.unwatch(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(_ALL_AT_ONCE if self._takes_all else _ACCEPTS_AT_ONCE):
            if self._stopped:
                return
            if self._must_wait():
                self._standing_since = 0.0  # the others take them
                return
            try:
                connected, address = self._listener.accept()
            except BlockingIOError:
                self._yields_until = self._standing_since = 0.0
                if self._takes_all:
                    self._stay_for_a_while()
                return
            except OSError as exc:
                if exc.errno in _OUT_OF_FILES:
                    self._descriptors.free()
                    _tell_short(exc.strerror or str(exc))
                    self._pause(_OUT_OF_FILES_PAUSE_S)
                    return
                continue  # that client has gone already (accept(2), ECONNABORTED)
            self._yields_until = 0.0
            self._begin(connected, address)
        # Those who lie in the listening socket's queue wait where nobody sees for how long, the oldest first. When it has not
        # been empty for a while, all of them are taken, and wait in the lobby.
        now = self._hub.now
        self._standing_since = self._standing_since or now
        if now - self._standing_since > _STANDING_S and not self._takes_all and self._service.overload.is_limited:
            self._takes_all, self._takes_all_until = True, now + _TAKES_ALL_S
            self._take_all()

    def _stay_for_a_while(self) -> None:
        """The queue is empty while all are taken; it is not over as long as they have to wait here."""
        now = self._hub.now
        if self._pending:
            self._takes_all_until = now + _TAKES_ALL_S
        self._takes_all = now < self._takes_all_until

    def _take_all(self) -> None:
        if self._takes_all and not self._stopped:
            self._accept()
            self._hub.call_at(self._hub.now + _TAKE_ALL_EVERY_S, self._take_all)

    def _must_wait(self) -> bool:
        if not self._must_not():
            return False
        if len(self._service.connections) >= self._most:
            self._pause(_FULL_PAUSE_S)
            return True
        now = self._hub.now
        if not self._yields_until:
            self._yields_until = now + _MOST_YIELD_S
        elif now >= self._yields_until:
            return False
        if self._hub.events_this_round == 1:  # else there is something better to do than to wait
            self._pause(_YIELD_S)
        return True

    def _must_not(self) -> bool:
        """Whether the worker is full, or has more connections than is fair."""
        count = len(self._service.connections)
        if count >= self._most:
            return True
        if self._siblings is None:
            return False
        fewest = self._siblings.fewest_clients()
        return fewest is not None and count > fewest + _SLACK + (fewest >> 5)

    def look_again(self) -> None:
        """A connection has ended: if that was what a pause waited for, it is over."""
        if self._paused and not self._must_not():
            self._go_on(self._pause_number)

    def _pause(self, seconds: float) -> None:
        self._paused = True
        self._pause_number += 1
        number = self._pause_number
        self._hub.pause(self._listener.fileno(), True)
        self._hub.call_at(self._hub.now + seconds, lambda: self._go_on(number))

    def _go_on(self, number: int) -> None:
        if self._paused and number == self._pause_number and not self._stopped:
            self._paused = False
            self._hub.pause(self._listener.fileno(), False)

    def _begin(self, connected: socket.socket, address: Any) -> None:
        service = self._service
        connected.setblocking(False)
        source: SocketAddress | None = None
        destination = self._name
        if self._is_unix:
            # Its clients are on this host, with the permission to use the socket.
            peer = client_info("", self._scheme, 0, True)
        else:
            host, port = address[0], address[1]
            host = unmapped(host)
            source = host, port
            if self._tells_addresses:  # bound to all of them, the listener's own name is none of them
                destination = connected.getsockname()[:2]
            peer = client_info(host, self._scheme, self._name[1] if self._name else 0, service.is_trusted(host))
        try:
            stream: GreenStream
            if self._context is None:
                stream = GreenStream(self._hub, connected)
            else:
                stream = TLSStream(self._hub, connected, self._context, server_side=True)
        except OSError as exc:
            log.debug("a client left at once: %s", exc)
            connected.close()
            return
        connection = Connection(service, stream, peer, source, destination, self._expects_header and peer.trusted)
        if self._descriptors.are_short(stream.descriptor):
            _tell_short("nearly all descriptors are in use")
            connection.turn_away()
        elif self._takes_all:
            self._pending.enter(connection)
        else:
            self._hub.run_job(connection.serve)


def _tell_short(why: str) -> None:
    summary.tell(logging.ERROR, "descriptors", "clients wait or get 503: %s; raise LimitNOFILE or lower worker_connections", why)
