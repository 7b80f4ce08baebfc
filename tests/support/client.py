"""A raw HTTP/1.1 client: what it sends is what the test wrote, and a body that ended early is never taken for whole."""
from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h11

Address = tuple[str, int]
Fields = list[tuple[str, str]]

# As long as the slowest thing that a test waits for; a hang fails the test with a timeout instead of stopping the run.
TIMEOUT_S = 20.0


class Truncated(Exception):
    """The connection ended before the response was whole. `response` is what came until then."""

    def __init__(self, response: Response, cause: str) -> None:
        super().__init__(f"{cause}; {response.status} with {len(response.body)} bytes of body")
        self.response = response


@dataclass(slots=True)
class Response:
    """One response with everything that came before it (1xx) and after its body (trailers)."""

    status: int = 0
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list[tuple[int, Fields]] = field(default_factory=list)

    def value(self, name: str) -> str | None:
        """The field's value (several joined by a comma), or None."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def served_by(self) -> str | None:
        return self.value("X-Served-By")

    def json(self) -> Any:
        return json.loads(self.body)


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def request_bytes(
    target: str = "/", method: str = "GET", fields: Fields | None = None, body: bytes = b"", version: str = "1.1",
    close: bool = False,
) -> bytes:
    """A request as bytes. Host is added unless given; Content-Length when there is a body and no framing was given."""
    given = list(fields or [])
    names = {name.lower() for name, _ in given}
    if "host" not in names:
        given.insert(0, ("Host", "test.example"))
    if body and not names & {"content-length", "transfer-encoding"}:
        given.append(("Content-Length", str(len(body))))
    if close:
        given.append(("Connection", "close"))
    lines = [f"{method} {target} HTTP/{version}"] + [f"{name}: {value}" for name, value in given]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Connection:
    """One client connection; a context manager."""

    def __init__(self, address: Address, timeout: float = TIMEOUT_S, receive_buffer: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        try:
            if receive_buffer:  # before connecting, or the window is agreed upon without it
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.settimeout(timeout)
            self.sock.connect(address)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.sock.close()
            raise
        self._rest = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(self, target: str = "/", method: str = "GET", **more: Any) -> Response:
        """Send one request and read its response."""
        self.send(request_bytes(target, method, **more))
        return self.response(method)

    def response(self, method: str = "GET") -> Response:
        """Read one whole response to a request with `method`. Raises Truncated."""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)
        # h11 frames by the request that was made; only its method matters for that.
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        response, body = Response(), bytearray()
        if self._rest:
            parser.receive_data(self._rest)
            self._rest = b""
        while True:
            try:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    parser.receive_data(self.sock.recv(256 * 1024))
                    continue
            except (h11.RemoteProtocolError, ConnectionError) as exc:
                response.body = bytes(body)
                raise Truncated(response, str(exc)) from exc
            if isinstance(event, h11.InformationalResponse):
                response.interim.append((event.status_code, _texts(event.headers)))
            elif isinstance(event, h11.Response):
                response.status, response.fields = event.status_code, _texts(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                response.body, response.trailers = bytes(body), _texts(event.headers)
                self._rest = parser.trailing_data[0]
                return response
            else:
                raise Truncated(response, f"unexpected {event!r}")

    def head(self) -> bytes:
        """Read up to the end of the next head, final or interim; what follows stays for `receive`. Raises Truncated."""
        while b"\r\n\r\n" not in self._rest:
            data = self.sock.recv(64 * 1024)
            if not data:
                raise Truncated(Response(), f"the connection ended in the head: {self._rest!r}")
            self._rest += data
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def receive(self, size: int = 256 * 1024) -> bytes:
        """Up to `size` bytes of what comes next, raw; b"" at the end."""
        if self._rest:
            data, self._rest = self._rest[:size], self._rest[size:]
            return data
        return self.sock.recv(size)

    def has_input(self, seconds: float = 0.0) -> bool:
        """Whether something comes, or the end, within `seconds`; it is left to be received."""
        return bool(self._rest) or bool(select.select([self.sock], [], [], seconds)[0])

    def ended(self, seconds: float = TIMEOUT_S) -> bool:
        """Whether the peer closes the connection within `seconds` without another byte."""
        self.sock.settimeout(seconds)
        try:
            return self.receive(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def fetch(
    address: Address, target: str = "/", method: str = "GET", timeout: float = TIMEOUT_S, **more: Any
) -> Response:
    """One request on a new connection, which is closed after the response. Raises Truncated."""
    with Connection(address, timeout) as connection:
        return connection.request(target, method, close=True, **more)


def refuses(address: Address) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(address, TIMEOUT_S).close()
    except ConnectionRefusedError:
        return True
    return False


class Burst:
    """`count` requests sent at once, each on its own connection; a context manager that closes them all."""

    def __init__(
        self, address: Address, count: int, target: str = "/hold", host: str = "test.example",
        timeout: float = TIMEOUT_S,
    ) -> None:
        self.connections: list[Connection] = []
        data = request_bytes(target, fields=[("Host", host)], close=True)
        try:
            for _ in range(count):
                self.connections.append(Connection(address, timeout))
            for connection in self.connections:
                connection.send(data)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Burst:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def answered(self) -> int:
        """How many of them have been answered (or ended) by now."""
        waiting = select.poll()
        for connection in self.connections:
            waiting.register(connection.sock, select.POLLIN)
        return len(waiting.poll(0))

    def responses(self) -> tuple[list[Response], list[Exception]]:
        """Wait for every response: those that came whole, and what the others ended with."""
        whole: list[Response] = []
        failed: list[Exception] = []
        for connection in self.connections:
            try:
                whole.append(connection.response())
            except (Truncated, OSError) as exc:
                failed.append(exc)
            # As it said with its request; a server may wait for that before it ends.
            connection.close()
        return whole, failed

    def statuses(self) -> list[int]:
        """The status codes of all responses; raises the first failure."""
        whole, failed = self.responses()
        if failed:
            raise failed[0]
        return [response.status for response in whole]


@contextlib.contextmanager
def timed() -> Iterator[list[float]]:
    """`with timed() as took:` leaves the block's seconds in `took[0]`."""
    took: list[float] = []
    start = time.monotonic()
    try:
        yield took
    finally:
        took.append(time.monotonic() - start)
