"""Tunnels: after 101 Switching Protocols both sides send in the new protocol (RFC 9110 7.8). The worker only copies bytes."""
from __future__ import annotations

from prefork_lb.green.event import OneShotEvent
from prefork_lb.green.streams import GreenStream
from prefork_lb.net.stream import StreamClosed, StreamTimeout
from prefork_lb.proxy.reply import Reply
from prefork_lb.wire.field_lines import field_lines
from prefork_lb.wire.head import RequestHead, list_members
from prefork_lb.worker.response_heads import status_line

_RECEIVE_BYTES = 64 * 1024
# Over these protocols the client could send further requests that this proxy would not check.
_NEVER = (b"h2", b"http/", b"tls/")


def offered(head: RequestHead) -> bytes:
    """The protocols that a request may switch to, as the Upgrade value for the server; empty if there are none.

    RFC 9110 7.8: from HTTP/1.0 an Upgrade is ignored, and Connection must name it.
    """
    if head.minor == 0 or b"upgrade" not in list_members(head.index.get(b"connection", ())):
        return b""
    protocols = [protocol.strip() for value in head.index[b"upgrade"] for protocol in value.split(b",")]
    return b", ".join(protocol for protocol in protocols if protocol and not protocol.lower().startswith(_NEVER))


def switch_block(reply: Reply) -> bytes:
    """The head that tells the client that the server switches."""
    protocols = b", ".join(reply.head.index.get(b"upgrade", ()))
    return (status_line(101, reply.reason) + field_lines([*reply.fields, *reply.added])
            + b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocols)


def run_tunnel(client: GreenStream, server: GreenStream, idle_timeout_s: float) -> tuple[int, int]:
    """Copy both ways until both sides have ended, one breaks, or both are silent for `idle_timeout_s`.

    Returns the numbers of bytes that went to the server and to the client.
    """
    return _Tunnel(client, server, idle_timeout_s).run()


class _Tunnel:
    """Two greenlets, one for each direction. `run` copies downstream and returns when both have ended."""

    def __init__(self, client: GreenStream, server: GreenStream, idle_timeout_s: float) -> None:
        self._client, self._server = client, server
        self._hub = client.hub
        self._idle_timeout_s = idle_timeout_s
        self._last = self._hub.now  # when something moved, in any direction
        self._upstream_ended = OneShotEvent(self._hub)
        self._to_server = 0

    def run(self) -> tuple[int, int]:
        self._client.owner = None
        self._hub.soon(self._upstream)
        try:
            to_client = self._copy(self._server, self._client)
        finally:
            self._upstream_ended.wait()
        return self._to_server, to_client

    def _upstream(self) -> None:
        try:
            self._to_server = self._copy(self._client, self._server)
        finally:
            self._upstream_ended.set()

    def _copy(self, source: GreenStream, sink: GreenStream) -> int:
        copied = 0
        while True:
            try:
                data = source.receive(_RECEIVE_BYTES, self._idle_timeout_s)
                if data:
                    self._send(sink, data)
            except StreamTimeout:
                if not self._is_silent():
                    continue
                self._break()
                return copied
            except StreamClosed:
                self._break()
                return copied
            if not data:
                sink.shut_down()
                return copied
            self._last = self._hub.now
            copied += len(data)

    def _send(self, sink: GreenStream, data: bytes) -> None:
        """Send all of `data`, for as long as a byte moves in any direction. Raises StreamTimeout, StreamClosed."""
        while (sent := sink.send_now(data)) < len(data):
            data = data[sent:]
            waiting = sink.unacknowledged()
            in_time = sink.wait_writable(self._hub.now + self._idle_timeout_s)
            if sink.descriptor < 0:
                raise StreamClosed("the other direction broke")
            if in_time or sink.unacknowledged() < waiting:
                self._last = self._hub.now
            elif self._is_silent():
                raise StreamTimeout

    def _is_silent(self) -> bool:
        return self._hub.now - self._last >= self._idle_timeout_s

    def _break(self) -> None:
        # Both streams, so that the greenlet of the other direction ends as well.
        self._client.close()
        self._server.close()
