"""New client connections: when they are accepted, and when they have to wait."""
from __future__ import annotations

import logging
import socket
import ssl
from typing import Any

from prefork_lb.green.accepting import Listening
from prefork_lb.log_summary import summary
from prefork_lb.net.descriptors import Descriptors, is_out_of_descriptors
from prefork_lb.net.readable import Readable
from prefork_lb.worker.connection import Connection
from prefork_lb.worker.fair_share import FairShare
from prefork_lb.worker.newcomers import Newcomers
from prefork_lb.worker.pending import PendingConnections
from prefork_lb.worker.service import Service
from prefork_lb.worker.setup import SiblingClients

_ACCEPTS_AT_ONCE = 8
_ALL_AT_ONCE = 4096
_STANDING_S = 0.25
_TAKES_ALL_S = 5.0
_TAKE_ALL_EVERY_S = 0.02
_YIELD_S = 0.001  # the shortest wait that epoll knows
_FULL_PAUSE_S = 0.05
_SHORTAGE_PAUSE_S = 0.1


class Acceptor:
    """Takes the connections of one listening socket."""

    def __init__(self, service: Service, listener: Any, context: ssl.SSLContext | None, siblings: SiblingClients | None,
                 most: int, expects_header: bool, descriptors: Descriptors) -> None:
        """`listener` is gunicorn's. `most`: the worker takes no connection while it has this many; `expects_header`:
        trusted peers begin with a PROXY header; `descriptors`: those of the worker."""
        self._service = service
        self._hub = service.hub
        self._listener: socket.socket = listener.sock
        self._listening = Listening(self._listener)
        self._most = most
        self._descriptors = descriptors
        self._newcomers = Newcomers(service, self._listener, context, expects_header)
        self._share = FairShare(siblings, lambda instant: self._hub.call_at(instant, self._see_who_took))
        self._queue = Readable(self._listener.fileno())
        self._standing_since = 0.0  # since when the listening socket's queue has not been empty; 0: it was emptied
        self._takes_all, self._takes_all_until = False, 0.0
        self._pending = PendingConnections(service.hub, service.overload)
        self._stopped = False
        self._pause_number = 0
        self._paused = False
        service.on_end.append(self.look_again)
        self._hub.watch(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take no more connections, and close the listening socket."""
        self._stopped = True
        self._hub.unwatch(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(_ALL_AT_ONCE if self._takes_all else _ACCEPTS_AT_ONCE):
            if self._stopped:
                return
            if self._must_wait():
                self._standing_since = 0.0  # other workers take the clients
                return
            try:
                taken = self._listening.accept()
            except OSError as exc:
                if is_out_of_descriptors(exc):
                    self._descriptors.free()
                    _tell_short(exc.strerror or str(exc))
                    self._pause(_SHORTAGE_PAUSE_S)
                    return
                continue  # that client has gone already (accept(2), ECONNABORTED)
            self._share.took()
            if taken is None:  # no client waits
                self._standing_since = 0.0
                if self._takes_all:
                    self._stay_for_a_while()
                return
            connection = self._newcomers.begin(*taken)
            if connection is not None:
                self._serve(connection)
        # The kernel does not show how long a client has waited in the listening socket's queue, and accept(2) gives the oldest
        # first. So when the queue has not been empty for a while, the worker takes all clients, and they wait in `pending`.
        now = self._hub.now
        self._standing_since = self._standing_since or now
        if now - self._standing_since > _STANDING_S and not self._takes_all and self._service.overload.is_limited:
            self._takes_all, self._takes_all_until = True, now + _TAKES_ALL_S
            self._take_all()

    def _stay_for_a_while(self) -> None:
        """The queue is empty. Go on taking all clients while some wait in `pending`, and for a while after that."""
        now = self._hub.now
        if self._pending:
            self._takes_all_until = now + _TAKES_ALL_S
        self._takes_all = now < self._takes_all_until

    def _take_all(self) -> None:
        if self._takes_all and not self._stopped:
            self._accept()
            self._hub.call_at(self._hub.now + _TAKE_ALL_EVERY_S, self._take_all)

    def _must_wait(self) -> bool:
        count = len(self._service.connections)
        if count >= self._most:
            self._pause(_FULL_PAUSE_S)
            return True
        if not self._share.leaves_it(count, self._hub.now):
            return False
        if self._hub.events_this_round == 1:  # else the worker has other events to handle, and they give the sibling its time
            self._pause(_YIELD_S)
        return True

    def _see_who_took(self) -> None:
        """A client has been left to the sibling long enough. If the sibling has taken it, the next one is left for as long.

        The kernel tells of clients that come, and not of those that others take.
        """
        if not self._stopped and not self._queue.now():
            self._share.took()

    def look_again(self) -> None:
        """A connection has ended. A pause that waited for this is over."""
        if self._paused:
            count = len(self._service.connections)
            if count < self._most and not self._share.is_reached(count, self._hub.now):
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

    def _serve(self, connection: Connection) -> None:
        if self._descriptors.are_short(connection.stream.descriptor):
            _tell_short("nearly all descriptors are in use")
            connection.turn_away()
        elif self._takes_all:
            self._pending.enter(connection)
        else:
            self._hub.soon(connection.serve)  # its request comes while the round's events are handled


def _tell_short(why: str) -> None:
    summary.tell(logging.ERROR, "descriptors", "clients wait or get 503: %s; raise LimitNOFILE or lower worker_connections", why)
