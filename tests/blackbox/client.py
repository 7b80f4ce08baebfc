"""A raw client: it writes exactly the bytes of a case, and a thread of its own reads whatever comes back."""
from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

from tests.support.place import HOST

from .outcome import Outcome
from .wire import Ended, Malformed, Message, Source, read_body, read_response_head

_SEND_WAIT_S = 10.0


class Client:
    """One connection to the proxy. `outcome` is filled in by the reading thread under `changed`."""

    def __init__(self, port: int, methods: tuple[bytes, ...], outcome: Outcome, changed: threading.Condition) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=_SEND_WAIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._methods = methods
        self._read_so_far = 0
        self.outcome = outcome
        self.changed = changed
        self.source = Source(self._socket, self._notify)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def send(self, data: bytes, piece: int = 0, pause_s: float = 0.0) -> bool:
        """Whether all of it could be written; a proxy may well close while bytes are still under way."""
        size = piece or max(1, len(data))
        try:
            for at in range(0, len(data), size):
                self._socket.sendall(data[at: at + size])
                if pause_s:
                    time.sleep(pause_s)
        except OSError:
            return False
        return True

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """Reset the connection, as a browser's stop button does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.finish()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)  # wakes the reading thread
        self._thread.join(2.0)
        self._socket.close()

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _read(self) -> None:
        closed = "open"
        self._socket.settimeout(_SEND_WAIT_S)
        try:
            while not self._one():
                pass
        except Ended as ended:
            closed = "reset" if ended.reset else "end"
            self.outcome.leftover = ended.partial
        except TimeoutError:
            self.outcome.leftover = self.source.take_all()
        except Malformed as error:
            self.outcome.malformed = str(error)
            closed = self._drain()
        with self.changed:
            self.outcome.closed = closed
            self.changed.notify_all()

    def _one(self) -> bool:
        """One final response with its interim ones; whether the connection is HTTP no longer."""
        method = self._methods[min(self._read_so_far, len(self._methods) - 1)]
        interims: list[Message] = []
        while True:
            message = Message(interims=interims)
            length = read_response_head(self.source, message, method)
            if message.status >= 200 or message.status == 101:
                break
            message.complete = True
            interims.append(message)
        self._read_so_far += 1
        with self.changed:
            self.outcome.replies.append(message)
        if message.status == 101 or (method == b"CONNECT" and message.status < 300):
            message.complete = True
            self._notify()
            self.outcome.leftover = b""
            self._drain_tunnel(message)
            return True
        try:
            read_body(self.source, message, length)
        except Ended as ended:
            message.body = message.body or ended.partial
            raise Ended(ended.reset) from None
        if message.framing == "close":
            raise Ended(False)
        self._notify()
        return False

    def _drain_tunnel(self, message: Message) -> None:
        while True:
            message.body += self.source.up_to(65536)
            self._notify()

    def _drain(self) -> str:
        """Everything until the end; how the connection ended."""
        self.outcome.leftover += self.source.take_all()
        try:
            while True:
                self.outcome.leftover += self.source.up_to(65536)
        except Ended as ended:
            return "reset" if ended.reset else "end"
        except TimeoutError:
            return "open"
