"""New connections to servers, from greenlets."""
from __future__ import annotations

import errno
import logging
import os
import socket
from dataclasses import dataclass

from prefork_lb.errors import ConnectFailed, ConnectTimeout, OutOfDescriptors
from prefork_lb.green.hub import WRITABLE, Hub
from prefork_lb.green.streams import GreenStream, TLSStream
from prefork_lb.net.address import Address
from prefork_lb.net.dial import ClientTLS
from prefork_lb.net.failures import connect_error
from prefork_lb.net.names import Endpoint, known_endpoint, look_up
from prefork_lb.net.stream import StreamClosed, StreamTimeout

_FULL_QUEUE_PAUSE_S = 0.005
# The system's resolver does not tell how long an answer is good for. Short enough to follow a change, long enough that a
# busy pool does not ask for every connection.
_REMEMBERED_S = 5.0

log = logging.getLogger("prefork_lb")


@dataclass(frozen=True, slots=True)
class _Answer:
    endpoints: list[Endpoint]
    until: float


class Dialer:
    """Connects to servers. The resolver runs in a thread, for it has no other way than to block."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._known: dict[Address, _Answer] = {}

    def dial(self, address: Address, timeout_s: float, tls: ClientTLS | None = None, preamble: bytes = b"") -> GreenStream:
        """Connect to a server; of a name, all addresses are tried in the resolver's order within `timeout_s` in all.

        `preamble` is sent before anything else. Raises ConnectTimeout, ConnectFailed, OutOfDescriptors.
        """
        hub = self._hub
        deadline = hub.now + timeout_s
        failure: ConnectFailed | OutOfDescriptors | None = None
        for endpoint in self._endpoints(address, deadline):
            if hub.now >= deadline:
                break
            try:
                return self._connect(endpoint, deadline, address, tls, preamble)
            except StreamTimeout:
                break
            except OSError as exc:
                failure = connect_error(address, exc, *endpoint)
                failure.__cause__ = exc
            except StreamClosed as exc:
                failure = ConnectFailed(f"{address}: {exc}")
                failure.__cause__ = exc
        raise failure or ConnectTimeout(f"{address}: no connection within {timeout_s:g} s")

    def _endpoints(self, address: Address, deadline: float) -> list[Endpoint]:
        known = known_endpoint(address)
        if known is not None:
            return [known]
        answer = self._known.get(address)
        if answer is None or answer.until < self._hub.now:
            try:
                found = self._look_up(address, deadline)
            except (ConnectFailed, ConnectTimeout) as exc:
                if answer is None:
                    raise
                log.warning("%s; the addresses it had stay in use", exc)
                found = answer.endpoints
            answer = self._known[address] = _Answer(found, self._hub.now + _REMEMBERED_S)
        return answer.endpoints

    def _look_up(self, address: Address, deadline: float) -> list[Endpoint]:
        try:
            return self._hub.run_blocking(lambda: look_up(address), deadline)
        except TimeoutError as exc:
            raise ConnectTimeout(f"{address}: the resolver did not answer in time") from exc

    def _connect(self, endpoint: Endpoint, deadline: float, address: Address, tls: ClientTLS | None,
                 preamble: bytes) -> GreenStream:
        hub = self._hub
        family, where = endpoint
        connected = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        stream: GreenStream | None = None
        try:
            if family != socket.AF_UNIX:
                # A small head must not wait for the acknowledgement of the one before (RFC 9293 3.7.4).
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = connected.connect_ex(where)
            while code == errno.EAGAIN and family == socket.AF_UNIX:
                # A unix socket whose queue is full says so at once, and no event tells when there is room (connect(2)).
                if hub.now >= deadline:
                    raise StreamTimeout
                hub.sleep(_FULL_QUEUE_PAUSE_S)
                code = connected.connect_ex(where)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            stream = GreenStream(hub, connected)
            if code == errno.EINPROGRESS:
                self._finish(stream, deadline)
            if preamble:
                stream.send(preamble, deadline - hub.now)
            if tls is not None:
                stream = self._secure(stream, tls, deadline)
        except BaseException:
            if stream is None:
                connected.close()
            else:
                stream.close()
            raise
        return stream

    @staticmethod
    def _finish(stream: GreenStream, deadline: float) -> None:
        # The first event tells of the outcome, whichever it is.
        if not stream.ready & WRITABLE and not stream.wait_writable(deadline):
            raise StreamTimeout
        code = stream.connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _secure(self, stream: GreenStream, tls: ClientTLS, deadline: float) -> TLSStream:
        connected = stream.detach()
        try:
            secured = TLSStream(self._hub, connected, tls.context, server_side=False, server_name=tls.server_name)
        except BaseException:
            connected.close()
            raise
        try:
            secured.handshake(deadline - self._hub.now)
        except BaseException:
            secured.close()
            raise
        return secured
