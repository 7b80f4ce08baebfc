"""Streams over TLS.

OpenSSL reads ahead: bytes that it holds make no edge. So READ is cleared in `ready` only when OpenSSL would block.
"""
from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from prefork_lb.green.channel import BROKEN, READ
from prefork_lb.green.hub import Hub
from prefork_lb.green.streams import ENDED, WOULD_BLOCK, GreenStream, HubStream
from prefork_lb.net.failures import failure_text
from prefork_lb.net.stream import StreamClosed, StreamTimeout, Unneeded


class TLSStream(GreenStream):
    """A GreenStream over TLS. `handshake` comes before any receive or send."""

    __slots__ = ("_ahead", "_may_say_end", "_tls", "is_secured")
    is_plain = False

    receive_or, is_quiet = HubStream.receive_or, HubStream.is_quiet
    send, send_last, send_now = HubStream.send, HubStream.send_last, HubStream.send_now

    def __init__(self, hub: Hub, connected: socket.SocketType, context: ssl.SSLContext, server_side: bool,
                 server_name: str | None = None) -> None:
        """Take over a connected, non-blocking socket. `server_name` is verified, and sent, on the client's side."""
        assert isinstance(connected, socket.socket)  # `ssl` wraps no other
        self._tls = context.wrap_socket(connected, server_side=server_side, do_handshake_on_connect=False,
                                        suppress_ragged_eofs=False, server_hostname=server_name)
        self._ahead = b""
        self._may_say_end = True
        self.is_secured = False  # the handshake is done
        super().__init__(hub, self._tls)

    def take_preamble(self, measure: Callable[[bytes], int | None], limit: int, timeout_s: float) -> None:
        """Receive what the peer sends in the clear before the handshake, and not a byte beyond it.

        `measure` gets all that has come, at most `limit` bytes. It returns how many of them are the preamble; None: it is not
        whole yet. Raises StreamTimeout, StreamClosed, and what `measure` raises.
        """
        deadline = self.hub.now + timeout_s
        receive = functools.partial(socket.socket.recv, self._tls)  # past TLS
        while True:
            try:
                data = receive(limit, socket.MSG_PEEK)
                length = measure(data) if data else None
                if length is not None:
                    receive(length)
                    return
            except BlockingIOError:
                pass
            except OSError as exc:
                raise StreamClosed(exc.strerror) from exc
            # Further bytes are a new edge, though those that were only looked at are still there.
            if self.descriptor < 0 or self.ready & ENDED:
                raise StreamClosed("the peer left before the handshake")
            if not self.wait_readable(deadline):
                raise StreamTimeout

    def handshake(self, timeout_s: float, unless: GreenStream | None = None) -> None:
        """Agree on keys. Raises StreamTimeout, StreamClosed with what went wrong, and Unneeded as a `net.dial.Dial`."""
        deadline = self.hub.now + timeout_s
        while True:
            try:
                self._tls.do_handshake()
                self.is_secured = True
                return
            except ssl.SSLWantReadError:
                self.ready &= ~READ
                if unless is None:
                    in_time = self.wait_readable(deadline)
                elif unless.is_quiet():
                    in_time = self.wait_either(unless, deadline)
                else:
                    raise Unneeded from None
                # A handshake's signature takes a millisecond. When many clients come at once, other work runs between two.
                self.hub.turns.share()
                if self.descriptor < 0:
                    raise StreamClosed("closed on this side") from None
            except ssl.SSLWantWriteError:
                in_time = self.wait_writable(deadline)
            except OSError as exc:
                raise StreamClosed(failure_text(exc)) from exc
            if not in_time:
                raise StreamTimeout

    def shown(self) -> tuple[Mapping[str, Any] | None, bytes | None]:
        """The certificate that the peer has shown, as `ssl` describes it, and its bytes. Empty: nobody has verified it."""
        return self._tls.getpeercert(), self._tls.getpeercert(True)

    def receive_now(self, limit: int) -> bytes | None:
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        try:
            return self._tls.recv(limit)
        except WOULD_BLOCK:
            # OpenSSL has emptied the socket. Until then READ stays set: records that it read ahead make no edge.
            self.ready &= ~READ
            if self.ready & BROKEN:
                raise StreamClosed("connection lost") from None
            return None
        except ssl.SSLEOFError as exc:
            raise StreamClosed("ended without TLS's close_notify") from exc
        except OSError as exc:
            raise StreamClosed(exc.strerror) from exc

    def has_input(self) -> bool:
        if self._ahead or self.ready & ENDED:
            return True
        if self.ready & READ:
            # TLS 1.3 servers send session tickets after the handshake: bytes, but no input. Only a read shows which it is.
            try:
                data = self.receive_now(1)
            except StreamClosed:
                return True
            if data is not None:
                self._ahead = data
                return True
        return False

    def shut_down(self) -> None:
        self._say_end()
        super().shut_down()

    def reset_at_close(self, resets: bool) -> None:
        self._may_say_end = not resets  # close_notify would make this an ordinary end
        super().reset_at_close(resets)

    def close(self) -> None:
        if self.descriptor >= 0 and self._may_say_end:
            self._say_end()
        super().close()

    def _say_end(self) -> None:
        # close_notify (RFC 8446 6.1): without it the peer cannot tell the end from a cut. We do not wait for the peer's.
        with contextlib.suppress(OSError, ValueError):
            self._tls.unwrap()
