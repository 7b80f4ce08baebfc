"""A server and clients that send without pause, each in a process of its own: what a worker must share its loop under.

`python -m tests.support.flood server` prints its port and answers every request as its target says; `... client HOST PORT KIND`
floods through the proxy at that address until it is ended. Nothing here waits between two sends, and all blocks are made
beforehand: the proxy between them never finds a socket empty.
"""
from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

BLOCK_BYTES = 256 * 1024
ENDLESS = 10**15

KINDS = ("chunks-1", "chunks-100", "chunks-16384", "length", "until-close", "tunnel-down", "tunnel-up", "upload-length",
         "upload-chunks-1", "upload-chunks-100", "extensions", "upload-extensions")
"""What may be flooded with: the direction is down, from server to client, where it does not say `up`."""


def block(kind: str) -> bytes:
    """The bytes that a flood of this kind repeats."""
    if "chunks-" in kind:
        size = int(kind.rpartition("-")[2])
        chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    elif "extensions" in kind:
        chunk = b"1;a\r\nx\r\n"
    else:
        chunk = b"x"
    return chunk * max(1, BLOCK_BYTES // len(chunk))


def head(kind: str) -> bytes:
    """The head with which the server begins its answer."""
    if kind.startswith("tunnel"):
        return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: flood\r\n\r\n"
    framing = b"Transfer-Encoding: chunked" if "chunks" in kind or "extensions" in kind else b"Content-Length: %d" % ENDLESS
    return b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % (b"Connection: close" if kind == "until-close" else framing)


def request(kind: str) -> bytes:
    """The head with which a client asks for it."""
    lines = [b"POST" if kind.startswith("upload") else b"GET", b" /", kind.encode(), b" HTTP/1.1\r\nHost: flood.test\r\n"]
    if kind.startswith("tunnel"):
        lines.append(b"Connection: Upgrade\r\nUpgrade: flood\r\n")
    elif kind == "upload-length":
        lines.append(b"Content-Length: %d\r\n" % ENDLESS)
    elif kind.startswith("upload"):
        lines.append(b"Transfer-Encoding: chunked\r\n")
    return b"".join([*lines, b"\r\n"])


def send_endlessly(connected: socket.socket, kind: str) -> None:
    data = block(kind)
    while True:
        connected.sendall(data)


def drop_endlessly(connected: socket.socket) -> None:
    room = bytearray(BLOCK_BYTES)
    while connected.recv_into(room):
        pass


def answer(connected: socket.socket) -> None:
    """Serve one connection."""
    with contextlib.suppress(OSError), connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = connected.recv(65536)
                if not data:
                    return
                buffer += data
            start, _, buffer = buffer.partition(b"\r\n\r\n")
            kind = start.split(b" ")[1][1:].decode()
            if not kind:
                connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            elif kind.startswith("upload"):
                drop_endlessly(connected)
                return
            else:
                connected.sendall(head(kind))
                if kind == "tunnel-up":
                    drop_endlessly(connected)
                else:
                    send_endlessly(connected, kind)
                return


def serve() -> None:
    """Print the port and answer until the process is ended."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connected, _ = listener.accept()
            threading.Thread(target=answer, args=(connected,), daemon=True).start()


def flood(address: tuple[str, int], kind: str) -> None:
    """Ask for a flood, or make it, until the process is ended."""
    with socket.create_connection(address) as connected:
        connected.sendall(request(kind))
        if kind.startswith("upload"):
            send_endlessly(connected, kind)
        answered = b""
        while b"\r\n\r\n" not in answered:
            answered += connected.recv(65536)
        print(answered.split(b"\r\n")[0].decode(), flush=True)
        if kind == "tunnel-up":
            send_endlessly(connected, kind)
        drop_endlessly(connected)


@contextlib.contextmanager
def flood_server() -> Iterator[int]:
    """The server in a process of its own; its port."""
    with _process("server") as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextlib.contextmanager
def flooding(address: tuple[str, int], *kinds: str) -> Iterator[list[subprocess.Popen[str]]]:
    """A client a kind, each in a process of its own, flooding the proxy at `address`."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_process("client", address[0], str(address[1]), kind)) for kind in kinds]


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-m", "tests.support.flood", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve()
    else:
        flood((sys.argv[2], int(sys.argv[3])), sys.argv[4])
