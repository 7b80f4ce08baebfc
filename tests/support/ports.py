"""Addresses at which connecting fails, held for as long as a test needs them."""
from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tests.support.place import HOST


@contextlib.contextmanager
def refusing_address() -> Iterator[str]:
    """An address that refuses connections: the port is bound, so that nobody else gets it, but nobody listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield f"{HOST}:{sock.getsockname()[1]}"


@contextlib.contextmanager
def silent_address() -> Iterator[str]:
    """An address at which connecting neither works nor fails: its queue of connections is full and never emptied."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            raise AssertionError("the queue of a listening socket with a backlog of 0 did not fill up")
        yield f"{HOST}:{listener.getsockname()[1]}"


def free_port() -> int:
    """A port that was free a moment ago, for a configuration that must name one."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
