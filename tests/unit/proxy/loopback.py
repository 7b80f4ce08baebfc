"""Stands in for the two sides of the engine: a client, and a server over a real socket pair or a loopback port."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence

from prefork_lb.clock import ManualClock
from prefork_lb.net.address import Address
from prefork_lb.net.sockets import SocketStream
from prefork_lb.net.stream import Stream, StreamTimeout, Watched
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import Fields, ResponseHead

STRANGER = ClientInfo("192.0.2.7", b"http", 8000, False)
DEADLINE_S = 10.0  # for anything that must happen; far beyond what it takes


class Client:
    """A downstream that notes what it is given."""

    def __init__(self, gone: bool = False) -> None:
        self.gone = gone
        self.relayed: list[ResponseHead] = []
        self.waiting: object = None

    def is_gone(self) -> bool:
        return self.gone

    def relay(self, head: ResponseHead) -> None:
        self.relayed.append(head)


class Source:
    """A body source that gives one part a read; a part that is an exception is raised."""

    def __init__(self, *parts: bytes | Exception, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._parts = list(parts)
        self._trailers = list(trailers)
        self.limits: list[int] = []  # of the reads so far

    def read(self, limit: int) -> bytes:
        self.limits.append(limit)
        if not self._parts:
            return b""
        part = self._parts.pop(0)
        if isinstance(part, Exception):
            raise part
        assert len(part) <= limit, f"a read of {limit} bytes for a part of {len(part)}"
        return part

    def wait(self, server: Stream, timeout_s: float) -> bool:
        return True

    def trailers(self) -> Fields:
        return self._trailers


class Loopback:
    """A stream over one end of a socket pair, with the other end in the test's hand."""

    def __init__(self) -> None:
        mine, self.peer = socket.socketpair()
        self.peer.settimeout(DEADLINE_S)
        self.stream = SocketStream(mine)

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.peer.close()

    def say(self, *parts: bytes) -> None:
        """Send from the server's end and end it."""
        for part in parts:
            self.peer.sendall(part)
        self.peer.shutdown(socket.SHUT_WR)


class PiecewiseStream:
    """A stream that gives one piece a call and moves a clock by `step_s` with each; then it is silent until the timeout."""

    def __init__(self, pieces: Sequence[bytes], clock: ManualClock, step_s: float) -> None:
        self._pieces = list(pieces)
        self._clock = clock
        self._step_s = step_s
        self.asked: list[float] = []  # the timeouts of the calls

    def receive(self, limit: int, timeout_s: float) -> bytes:
        self.asked.append(timeout_s)
        if not self._pieces or self._step_s > timeout_s:
            self._clock.advance(timeout_s)
            raise StreamTimeout
        self._clock.advance(self._step_s)
        return self._pieces.pop(0)

    def receive_or(self, limit: int, timeout_s: float, watched: Watched) -> bytes | None:
        return None if watched.is_gone() else self.receive(limit, timeout_s)

    def send(self, data: bytes, timeout_s: float) -> None:
        raise NotImplementedError("this stream is only read")

    def send_unless_answered(self, data: bytes, timeout_s: float) -> int:
        raise NotImplementedError("this stream is only read")

    def fileno(self) -> int:
        raise NotImplementedError("there is no descriptor")

    def is_quiet(self) -> bool:
        return True

    def close(self) -> None:
        pass


class ScriptedServer:
    """A server on a loopback port. Each connection it accepts is handled by the next script, the last one again and again."""

    def __init__(self, *scripts: Callable[[Connection], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._scripts = list(scripts)
        self._connections: list[Connection] = []
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self._listener.getsockname()[1])

    @property
    def requests(self) -> list[bytes]:
        """The bytes of each request head that a script has received, connection by connection."""
        return [request for connection in self._connections for request in connection.requests]

    @property
    def accepted(self) -> int:
        return len(self._connections)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        for connection in self._connections:
            connection.hang_up()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        if kind is None and self._failures:
            raise self._failures[0]

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:  # closed: the test is over
                return
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            connection = Connection(connected)
            self._connections.append(connection)
            thread = threading.Thread(target=self._run, args=(script, connection), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, script: Callable[[Connection], None], connection: Connection) -> None:
        try:
            script(connection)
        except (EOFError, OSError):
            pass  # the proxy, or the end of the test, hung up: what matters of that the test sees itself
        except BaseException as exc:  # shown at the end of the test
            self._failures.append(exc)
        finally:
            connection.close()


class Connection:
    """The server's end of a connection, for scripts."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(DEADLINE_S)
        self._buffer = b""
        self.requests: list[bytes] = []

    def head(self) -> bytes:
        """Receive one request head, blank line included. Raises EOFError when the proxy ended the connection."""
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.requests.append(head + b"\r\n\r\n")
        return self.requests[-1]

    def body(self, length: int) -> bytes:
        """Receive so many bytes behind a head. Raises EOFError."""
        while len(self._buffer) < length:
            self._receive()
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        return data

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def wait_for_end(self) -> None:
        """Until the proxy ended the connection."""
        while self._socket.recv(65536):
            pass

    def reset(self) -> None:
        """End the connection with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def hang_up(self) -> None:
        """Break off whatever a script waits for."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data
