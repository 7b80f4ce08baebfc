"""Origins for benchmarks: `origin_server.py N` prints N ports and answers every request on them with the same 200."""
from __future__ import annotations

import asyncio
import sys

BODY = b"0123456789abcdef" * 8 + b"\n"
ANSWER = (b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
          b"Content-Length: %d\r\nCache-Control: private, max-age=0\r\n\r\n%b" % (len(BODY), BODY))


class Origin(asyncio.Protocol):
    """One connection: an answer for every end of a head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        *heads, self._pending = (self._pending + data).split(b"\r\n\r\n")
        if heads:
            self._transport.write(ANSWER * len(heads))


async def serve(number: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Origin, "127.0.0.1", 0) for _ in range(number)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
