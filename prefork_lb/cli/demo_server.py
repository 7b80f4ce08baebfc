"""A small app server for the demo: `python -m prefork_lb.cli.demo_server NAME DELAY_MS [MOODS]`.

It answers every request with its name. MOODS is what it goes through again and again, and for how many seconds each, as in
"well:20,slow:10,failing:12": slow takes eight times as long, failing ends connections without an answer, sick fails checks.
It binds a port of the kernel's choice on 127.0.0.1 and prints that port.
It ends when its standard input does, so that it never outlives the demo, however that one ends.
"""
from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW = 8  # times as long
CHECKS = "/healthz"
_STATUSES = {"/moved": HTTPStatus.FOUND, "/missing": HTTPStatus.NOT_FOUND, "/broken": HTTPStatus.INTERNAL_SERVER_ERROR,
             "/api/missing": HTTPStatus.NOT_FOUND}
SERVED_BY = "X-Served-By"  # as in prefork_lb.cli.traffic, which is not imported: it loads requests and rich


class Moods:
    """What a server goes through, by the time since `start`."""

    def __init__(self, said: str, start: float) -> None:
        """`said` is as in "well:20,slow:10"; "" means that it is always well."""
        self._start = start
        self._turns: Sequence[tuple[str, float]] = [
            (mood, float(seconds)) for mood, _, seconds in (turn.partition(":") for turn in said.split(",") if turn)]

    def at(self, now: float) -> str:
        """The mood of this moment."""
        if not self._turns:
            return "well"
        left = (now - self._start) % sum(seconds for _, seconds in self._turns)
        for mood, seconds in self._turns:
            if left < seconds:
                return mood
            left -= seconds
        return self._turns[-1][0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, delay_s: float, moods: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self._delay_s = name, delay_s
        self._varies = bool(moods)
        self._moods = Moods(moods, time.monotonic())

    @property
    def mood(self) -> str:
        return self._moods.at(time.monotonic())

    def work(self) -> None:
        """Take the time that a request takes."""
        varied = random.gammavariate(6, 1 / 6) if self._varies else 1
        time.sleep(self._delay_s * varied * (SLOW if self.mood == "slow" else 1))

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that left is no error. And Python aborts when a daemon thread writes to stderr while the process ends.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # kept-alive connections, as real app servers have
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            # RFC 9110 15.5.12: this server reads bodies of a known length only.
            self.close_connection = True
            self._answer(HTTPStatus.LENGTH_REQUIRED)
            return
        left = int(length)
        while left and (piece := self.rfile.read(min(left, 65536))):
            left -= len(piece)
        mood = self.server.mood
        if self.path == CHECKS:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE if mood == "sick" else HTTPStatus.OK)
        elif mood == "failing":
            self.close_connection = True
        else:
            self.server.work()
            self._answer(_STATUSES.get(self.path, HTTPStatus.OK))

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def _answer(self, status: HTTPStatus) -> None:
        body = f"{self.server.name}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(SERVED_BY, self.server.name)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the demo's screen belongs to the balancer."""


def main(name: str, delay_ms: str, moods: str = "") -> None:
    """Serve until standard input ends."""
    with _Server(name, float(delay_ms) / 1000, moods) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
