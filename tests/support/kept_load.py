"""A mixed load on connections that are kept: a client connects anew only after an orderly end."""
from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Sequence

from tests.support.client import Address, Connection, Fields, Response, Truncated, request_bytes
from tests.support.pattern import pattern
from tests.support.waiting import PATIENCE_S, wait_until

_UPLOAD = bytes(pattern(0, 100_000))
_CHUNKED = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (_UPLOAD[:7], _UPLOAD[7:70_000], _UPLOAD[70_000:]))


class Exchange:
    """A request, and what its response must be."""

    def __init__(self, target: str, method: str = "GET", body: bytes = b"", fields: Fields | None = None,
                 length: int | None = None, told: dict[str, object] | None = None) -> None:
        """`length` of the response's body, or the JSON object that it is."""
        self.method = method
        self.data = request_bytes(target, method, fields=fields) + body
        self._target, self._length, self._told = target, length, told

    def fault(self, response: Response) -> str:
        """What is wrong with the response; empty when nothing is."""
        if response.status != 200:
            return f"{self._target}: {response.status} {response.body[:80]!r}"
        if self._length is not None and len(response.body) != self._length:
            return f"{self._target}: {len(response.body)} bytes"
        if self._told is not None and response.json() != self._told:
            return f"{self._target}: {response.body[:80]!r}"
        return ""


SMALL = (Exchange("/bytes?n=300", length=300),)
_WHOLE: dict[str, object] = {"received": len(_UPLOAD), "fits": True, "trailers": {}}
MIXED = (
    *SMALL,
    Exchange("/bytes?n=300000", length=300_000),
    Exchange("/bytes?n=100000&framing=chunked", length=100_000),
    Exchange("/bytes?n=500", "HEAD", length=0),
    Exchange("/upload", "POST", _UPLOAD, [("Content-Length", str(len(_UPLOAD)))], told=_WHOLE),
    Exchange("/upload", "PUT", _CHUNKED + b"0\r\n\r\n", [("Transfer-Encoding", "chunked")], told=_WHOLE),
    Exchange("/sleep?seconds=0.02&n=40", length=40),
)


# A worker that ends keeps a connection for as long after an exchange, for a request that is on its way.
KEPT_S = 1.0


class KeptLoad:
    """`clients` threads, each with one connection at a time; a context manager.

    An orderly end is `Connection: close` with a response, or the connection's end between two exchanges. A client with a pause
    looks for that before it sends; what it sends later than `KEPT_S` after the exchange before may come too late all the same.
    Everything else is a failure.
    """

    def __init__(self, address: Address, clients: int, exchanges: Sequence[Exchange] = SMALL, pause_s: float = 0.0,
                 connect: Callable[[Address], Connection] = Connection) -> None:
        """`pause_s` between two exchanges of a client."""
        self.answered = 0
        self.failures: list[str] = []
        self._address, self._exchanges, self._pause_s, self._connect = address, exchanges, pause_s, connect
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> KeptLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def _client(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            try:
                with self._connect(self._address) as connection:
                    turn = self._use(connection, turn)
            except (OSError, Truncated) as exc:
                self._fail(f"{type(exc).__name__}: {exc}")

    def _use(self, connection: Connection, turn: int) -> int:
        begun = 0.0
        while not self._stop.is_set():
            exchange = self._exchanges[turn % len(self._exchanges)]
            turn += 1
            before, begun, sent = begun, time.monotonic(), 0.0
            try:
                connection.send(exchange.data)
                sent = time.monotonic()
                response = connection.response(exchange.method)
            except (ConnectionError, Truncated) as exc:
                is_unanswered = not isinstance(exc, Truncated) or exc.response.status == 0
                if before and is_unanswered and (sent or time.monotonic()) - before >= KEPT_S:
                    break
                raise
            fault = exchange.fault(response)
            if fault:
                self._fail(fault)
            with self._lock:
                self.answered += 1
            if (response.value("Connection") or "").lower() == "close":
                break
            if self._pause_s and not self._stop.wait(self._pause_s) and has_input(connection):
                break
        return turn

    def _fail(self, what: str) -> None:
        with self._lock:
            self.failures.append(what)

    def wait_for(self, more: int, seconds: float = PATIENCE_S) -> None:
        """Wait for `more` answers than there are now, or the first failure."""
        goal = self.answered + more
        wait_until(lambda: self.answered >= goal or self.failures, lambda: f"{more} more answers, {self.answered} now", seconds)


def has_input(connection: Connection) -> bool:
    """Whether something, or the end, has come on a connection that waits for nothing."""
    waiting = select.poll()
    waiting.register(connection.sock, select.POLLIN)
    return bool(waiting.poll(0))
