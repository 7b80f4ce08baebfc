"""The two ends of the failure benchmark: a server that fails when told to, and clients that ask whatever the answers do.

Each is a process of its own, started by `failures.py`:

    python benchmarks/failing_servers.py server NAME PORT                    # prints its port; behaviors come as JSON lines
    python benchmarks/failing_servers.py clients PORT BEGIN SECONDS RATE SEED  # prints its records as JSON

Only the standard library is imported here, so that both start quickly.
"""
from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

SERVICE_S = 0.030
CONSTANT = "FAILURES_CONSTANT"  # in the environment, when service times are
CLIENT_TIMEOUT_S = 10.0
BODY = b"0123456789abcdef" * 128  # 2 KiB: a half of it has arrived when the connection is reset
RESET_AFTER_S = 0.020  # for the first half to be read: a reset may overtake it
REQUEST = b"GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: failures\r\nAccept: */*\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Behavior:
    """How a server answers the requests that reach it from now on."""

    status: int = 200
    factor: float = 1.0  # times the usual service time; 0: at once
    reset: bool = False  # in the middle of the body
    listening: bool = True  # otherwise connecting is refused, and open connections end after the answer under way


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are seconds, `start_s` from the run's begin: when it was due, not when the client got round to it."""

    start_s: float
    latency_s: float
    late_s: float  # of `latency_s`, what the client itself was late
    status: int  # 0: no complete answer
    broken: str  # connect, closed (before the head), truncated (after it), timeout; empty: a complete answer
    server: str  # its name, if it was a server that answered

    @property
    def error(self) -> str:
        """What kind of error the client saw; empty: none."""
        return self.broken or (str(self.status) if self.status >= 400 else "")

    @property
    def end_s(self) -> float:
        return self.start_s + self.latency_s


# -- the server ---------------------------------------------------------------------------------------------------------


class ServerConnection(asyncio.Protocol):
    """One connection of a server, with at most one request at a time: no proxy here pipelines."""

    transport: asyncio.Transport

    def __init__(self, server: FailingServer) -> None:
        self._server = server
        self._received = b""
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            self._received, self.busy = b"", True
            behavior = self._server.behavior
            self._server.loop.call_later(self._server.service_s() * behavior.factor, self._answer, behavior)

    def _answer(self, behavior: Behavior) -> None:
        self.busy = False
        if self.transport.is_closing():
            return
        keep = self._server.behavior.listening
        head = (f"HTTP/1.1 {behavior.status} Scripted\r\nContent-Type: text/plain\r\nX-Server: {self._server.name}\r\n"
                f"Content-Length: {len(BODY)}\r\n{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n").encode()
        if behavior.reset:
            self.transport.write(head + BODY[:len(BODY) // 2])
            self._server.loop.call_later(RESET_AFTER_S, self._reset)
            return
        self.transport.write(head + BODY)
        if not keep:
            self.transport.close()

    def _reset(self) -> None:
        if not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class FailingServer:
    """A server whose service times are exponential, or constant, with as many requests at a time as come."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.behavior = Behavior()
        self.connections: set[ServerConnection] = set()
        self.loop = asyncio.get_running_loop()
        self._rng = random.Random(name)
        self._listener: asyncio.Server | None = None

    def service_s(self) -> float:
        return SERVICE_S if os.environ.get(CONSTANT) else self._rng.expovariate(1 / SERVICE_S)

    async def behave(self, behavior: Behavior) -> None:
        self.behavior = behavior
        if behavior.listening and self._listener is None:
            self._listener = await self.loop.create_server(lambda: ServerConnection(self), "127.0.0.1", self.port, backlog=1024)
            self.port = self._listener.sockets[0].getsockname()[1]
        elif not behavior.listening and self._listener is not None:
            self._listener.close()
            self._listener = None
            for connection in list(self.connections):
                if not connection.busy:
                    connection.transport.close()


async def serve(name: str, port: int) -> None:
    """Serve until stdin ends, which it does also when the parent is killed."""
    server = FailingServer(name, port)
    await server.behave(Behavior())
    print(server.port, flush=True)
    commands = asyncio.StreamReader()
    await server.loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        await server.behave(Behavior(**json.loads(line)))


# -- the clients --------------------------------------------------------------------------------------------------------


class ClientConnection(asyncio.Protocol):
    """A kept connection to the proxy; in `idle` while no request is on it."""

    transport: asyncio.Transport

    def __init__(self, idle: collections.deque[ClientConnection]) -> None:
        self._idle = idle
        self._received = b""
        self._answer: asyncio.Future[tuple[int, str, str]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self) -> tuple[int, str, str]:
        """Status, what broke (see Record) and the server's name."""
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(REQUEST)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.transport.abort()
            raise

    def data_received(self, data: bytes) -> None:
        self._received += data
        found = read_answer(self._received)
        if found is not None and self._answer is not None and not self._answer.done():
            status, server, keep = found
            self._answer.set_result((status, "", server))
            if keep:
                self._idle.append(self)
            else:
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(self)
        if self._answer is not None and not self._answer.done():
            head, end, _ = self._received.partition(b"\r\n\r\n")
            if end and exc is None and b"content-length" not in head.lower() and b"chunked" not in head.lower():
                self._answer.set_result((int(head[9:12]), "", server_name(head)))  # the close was the body's end
            else:
                self._answer.set_result((0, "truncated" if end else "closed", ""))


def server_name(head: bytes) -> str:
    found = re.search(rb"\r\nx-server: *([^\r]+)", head, re.I)
    return found[1].decode() if found else ""


def read_answer(data: bytes) -> tuple[int, str, bool] | None:
    """Status, server's name and whether the connection is kept, once the answer is complete; for the answers met here."""
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
    if not end or (len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n")):
        return None
    return int(head[9:12]), server_name(head), re.search(rb"\r\nconnection: *close", head, re.I) is None


async def generate(port: int, begin: float, seconds: float, rate: float, seed: int) -> list[Record]:
    """Ask at random moments, `rate` a second on average, from the monotonic instant `begin` on for `seconds`."""
    rng, loop = random.Random(seed), asyncio.get_running_loop()
    idle: collections.deque[ClientConnection] = collections.deque()
    records: list[Record] = []

    async def one(due: float) -> None:
        status, broken, server = 0, "", ""
        sent = time.monotonic()
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                # The one that waited longest: the load stays spread over the proxy's workers.
                connection = idle.popleft() if idle else (
                    await loop.create_connection(lambda: ClientConnection(idle), "127.0.0.1", port))[1]
                status, broken, server = await connection.ask()
        except TimeoutError:
            broken = "timeout"
        except OSError:
            broken = "connect"
        records.append(Record(due - begin, time.monotonic() - due, sent - due, status, broken, server))

    due = begin + rng.expovariate(rate)
    async with asyncio.TaskGroup() as group:
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(one(due))
            due += rng.expovariate(rate)
    return sorted(records, key=lambda record: record.start_s)


def answers(port: int) -> bool:
    """Whether anything in HTTP comes back: a proxy may listen and then not find its feet."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(REQUEST)
        return connection.recv(5) == b"HTTP/"
    return False


# -- as processes -------------------------------------------------------------------------------------------------------


def quiet_port() -> int:
    """A free port that no outgoing connection is given: a server that was killed must find its port free again."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.Random().sample(range(first // 2, first), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port below the range of outgoing connections")


class ServerProcess:
    """A FailingServer in a process of its own."""

    def __init__(self, name: str) -> None:
        self.name, self.port = name, quiet_port()
        self.start()

    def start(self) -> None:
        command = [sys.executable, __file__, "server", self.name, str(self.port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise OSError(f"server {self.name} did not start on port {self.port}")

    def behave(self, behavior: Behavior) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(behavior)).encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self.close()

    def close(self) -> None:
        self._process.kill()  # also ends one that is stopped
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def processes(count: int) -> Iterator[list[ServerProcess]]:
    """Servers named from "1" on, ended afterwards in whatever state they are."""
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(1, count + 1):
            servers.append(ServerProcess(str(number)))
            stack.callback(servers[-1].close)
        yield servers


@contextlib.contextmanager
def client_process(port: int, begin: float, seconds: float, rate: float, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """`generate` in a process of its own; `collect` waits for it."""
    command = [sys.executable, __file__, "clients", str(port), repr(begin), str(seconds), str(rate), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def collect(process: subprocess.Popen[bytes]) -> list[Record]:
    output, _ = process.communicate()
    if process.returncode:
        raise OSError(f"the clients ended with status {process.returncode}")
    return [Record(*row) for row in json.loads(output)]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    role, *values = sys.argv[1:]
    if role == "server":
        asyncio.run(serve(values[0], int(values[1])))
    else:
        port, begin, seconds, rate, seed = values
        records = asyncio.run(generate(int(port), float(begin), float(seconds), float(rate), int(seed)))
        sys.stdout.write(json.dumps([astuple(record) for record in records]))


if __name__ == "__main__":
    main()
