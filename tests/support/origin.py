"""A scripted origin: several HTTP/1.1 servers on one event loop in one thread, steered by the test.

What a request is answered with stands in its target (see `behaviors.py`), so that one origin serves every test. The
counts and the log are written by the loop's thread only; the test reads them.
"""
from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

from tests.support.place import HOST
from tests.support.waiting import PATIENCE_S, wait_until

Result = TypeVar("Result")

# Read in large pieces, so that the origin is not what a transfer waits for; small enough to feel back-pressure.
BUFFER_BYTES = 256 * 1024


class PeerGone(Exception):
    """The proxy closed its connection before the origin was done with it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as a server saw it; `number` counts over all servers of the origin, from 0."""

    number: int
    server: int
    connection: int
    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """All values of the field `name`, in order."""
        return [value for key, value in self.fields if key.lower() == name.lower()]


@dataclass(slots=True)
class Request:
    """A request head on its way through a behavior."""

    arrival: Arrival
    path: str
    options: dict[str, str]

    def number(self, name: str, default: float) -> float:
        return float(self.options.get(name, default))

    def count(self, name: str, default: int) -> int:
        return int(self.options.get(name, default))


class Link(asyncio.StreamReaderProtocol):
    """The origin's end of one connection."""

    def __init__(self, server: OriginServer, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = asyncio.StreamReader(limit=BUFFER_BYTES, loop=loop)
        super().__init__(self.reader, self._connected, loop=loop)
        self.server = server
        self.number = -1
        self.requests = 0
        self.busy = False  # a request is running on it
        self.counted = False  # it counts as in flight
        self.gone = asyncio.Event()  # the peer closed, reset, or half-closed
        self.close_at_next = False  # see the behavior "stale"
        self.sent = 0  # bytes of the running or last request's response handed to the kernel or about to be
        self.received = 0  # bytes of its body read
        self.body_read = False  # all of it
        self.writer: asyncio.StreamWriter

    def eof_received(self) -> bool:
        self.gone.set()
        super().eof_received()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        super().connection_lost(exc)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        # The end of the test cancels it; asyncio's own callback cannot take a task that ended so (CPython 3.11).
        with contextlib.suppress(asyncio.CancelledError):
            await self.server.serve(self)

    async def send(self, data: bytes | memoryview) -> None:
        """Hand `data` to the peer, at its pace. Raises PeerGone."""
        if self.writer.transport.is_closing():
            raise PeerGone
        self.writer.write(data)
        try:
            await self.writer.drain()
        except ConnectionError as exc:
            raise PeerGone from exc
        self.sent += len(data)

    async def send_last(self, data: bytes) -> None:
        """Hand the end of a response to the peer. Who has read it finds the request no longer in flight."""
        self.uncount()
        await self.send(data)

    def uncount(self) -> None:
        """Take the running request out of what is in flight, unless that is done."""
        if self.counted:
            self.counted = False
            self.server.in_flight -= 1

    async def line(self) -> bytes:
        try:
            return await self.reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise PeerGone from exc

    async def unless_gone(self, wanted: Awaitable[Result]) -> Result:
        """Wait for `wanted`; raise PeerGone as soon as the peer leaves instead."""
        task = asyncio.ensure_future(wanted)
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise PeerGone
            return task.result()
        finally:
            task.cancel()
            gone.cancel()

    def reset(self) -> None:
        """Close with RST: what was sent but not yet read is lost to the peer."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(slots=True, eq=False)
class OriginServer:
    """One listening address of the origin."""

    origin: Origin
    index: int
    address: str
    in_flight: int = 0
    most_in_flight: int = 0
    requests: int = 0
    links: set[Link] = field(default_factory=set)
    accepted: int = 0
    listener: asyncio.Server | None = None

    @property
    def name(self) -> str:
        return f"origin-{self.index}"

    async def serve(self, link: Link) -> None:
        """Answer the requests of one connection until either side ends it."""
        link.number = self.accepted
        self.accepted += 1
        self.links.add(link)
        try:
            while await self._serve_one(link):
                pass
        except PeerGone:
            self.origin.peers_gone += 1
        finally:
            self.links.discard(link)
            link.writer.close()

    async def _serve_one(self, link: Link) -> bool:
        request = await self._read_head(link)
        if request is None:
            return False
        self.in_flight += 1
        link.counted = True
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.requests += 1
        link.requests += 1
        link.busy = True
        link.sent = link.received = 0
        link.body_read = False
        try:
            if link.close_at_next:
                return False
            return await self.origin.behave(link, request)
        finally:
            link.busy = False
            link.uncount()

    async def _read_head(self, link: Link) -> Request | None:
        try:
            start = await link.line()
        except PeerGone:
            return None  # the end of an idle connection
        method, target, version = start.decode("latin-1").split()
        fields: list[tuple[str, str]] = []
        while (line := await link.line()) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name, value.strip()))
        arrival = Arrival(len(self.origin.arrivals), self.index, link.number, method, target, version, tuple(fields))
        self.origin.arrivals.append(arrival)
        path, _, query = target.partition("?")
        return Request(arrival, path, dict(parse_qsl(query)))


Behavior = Callable[[Link, Request], Awaitable[bool]]


class Origin:
    """`servers` HTTP servers in one thread; a context manager.

    `family` is "inet" (HOST), "localhost" (127.0.0.1), "inet6" (::1) or "unix" (sockets in `folder`). `behave` answers one
    request and says whether the connection is kept.
    """

    def __init__(self, servers: int, behave: Behavior, family: str = "inet", folder: Path | None = None) -> None:
        self.behave = behave
        self.arrivals: list[Arrival] = []
        self.peers_gone = 0
        self.notes: list[str] = []  # what behaviors report to the test
        self._family, self._folder = family, folder
        self._loop = asyncio.new_event_loop()
        self._gates = [asyncio.Event() for _ in range(servers)]
        self.servers = [OriginServer(self, index, "") for index in range(servers)]
        self._thread = threading.Thread(target=self._run, name="origin", daemon=True)

    def __enter__(self) -> Origin:
        self._thread.start()
        for server in self.servers:
            self.call(self._listen(server))
        return self

    def __exit__(self, *exc: object) -> None:
        self.call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the origin's loop did not stop"
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, coroutine: Awaitable[Result]) -> Result:
        """Run `coroutine` on the origin's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._loop).result(10)

    async def _listen(self, server: OriginServer, port: int = 0) -> None:
        def link() -> Link:
            return Link(server, self._loop)

        if self._family == "unix":
            assert self._folder is not None, "unix sockets need a folder"
            path = str(self._folder / f"origin-{server.index}.sock")
            server.listener = await self._loop.create_unix_server(link, path, backlog=1024)
            server.address = f"unix:{path}"
            return
        host = {"inet6": "::1", "localhost": "127.0.0.1"}.get(self._family, HOST)
        server.listener = await self._loop.create_server(link, host, port, backlog=1024)
        bound = server.listener.sockets[0].getsockname()[1]
        server.address = f"[::1]:{bound}" if self._family == "inet6" else f"{host}:{bound}"

    async def _stop(self) -> None:
        for server in self.servers:
            await self._close(server)
        current = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks(self._loop) if task is not current]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _close(self, server: OriginServer) -> None:
        if server.listener is not None:
            server.listener.close()
            server.listener = None
        for link in list(server.links):
            link.writer.transport.abort()

    # -- what a test steers -------------------------------------------------------------------------------------

    def release(self, *indexes: int) -> None:
        """Let every request that is held now go on: at the servers with these indexes, at all when none is given."""

        async def open_gates() -> None:
            await asyncio.sleep(0)  # who is in flight by now comes to the gate first
            for index in indexes or range(len(self.servers)):
                gate, self._gates[index] = self._gates[index], asyncio.Event()
                gate.set()

        self.call(open_gates())

    async def gate_opened(self, index: int) -> None:
        """Wait until the test releases server `index`, whatever the peer does."""
        await self._gates[index].wait()

    async def held(self, link: Link) -> None:
        """Wait until the test releases the link's server; raises PeerGone when the peer leaves first."""
        await link.unless_gone(self.gate_opened(link.server.index))

    def stop_server(self, index: int) -> None:
        """Close the server's listening socket and all its connections: connecting is refused from now on."""
        self.call(self._close(self.servers[index]))

    def restart_server(self, index: int) -> None:
        """Listen again at the address that `stop_server` gave up."""
        server = self.servers[index]
        self.call(self._listen(server, int(server.address.rpartition(":")[2])))

    def close_idle_connections(self) -> None:
        """Close every connection on which no request is running."""

        async def close() -> None:
            for server in self.servers:
                for link in list(server.links):
                    if not link.busy:
                        link.writer.close()

        self.call(close())

    # -- what a test reads --------------------------------------------------------------------------------------

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self.servers]

    @property
    def in_flight(self) -> list[int]:
        """Requests in flight at each server, in the servers' order."""
        return [server.in_flight for server in self.servers]

    @property
    def spread(self) -> int:
        counts = self.in_flight
        return max(counts) - min(counts)

    def order(self, start: int = 0) -> list[int]:
        """The servers' numbers in the order in which requests arrived, from arrival number `start` on."""
        return [arrival.server for arrival in self.arrivals[start:]]

    def shares(self, start: int = 0) -> list[int]:
        """Requests that each server got, from arrival number `start` on."""
        counts = Counter(self.order(start))
        return [counts[server.index] for server in self.servers]

    def wait_for_in_flight(self, total: int, seconds: float = PATIENCE_S) -> list[int]:
        """Wait until exactly `total` requests are in flight; return how many at each server."""
        wait_until(lambda: sum(self.in_flight) == total, lambda: f"{total} requests in flight at {self}", seconds)
        return self.in_flight

    def __repr__(self) -> str:
        return f"<origin: in flight {self.in_flight}, arrived {len(self.arrivals)}>"

    @contextlib.contextmanager
    def released_at_end(self) -> Iterator[None]:
        """Release what is held when the block ends, however it ends, so that nothing waits for a failed test."""
        try:
            yield
        finally:
            self.release()


async def _awaited(wanted: Awaitable[Result]) -> Result:
    return await wanted
