"""An instance in real shared memory, as the tests of `shared` have it; servers that are checked, and a prober."""
from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.controller.probe import Prober
from tests.unit.controller.answering import Serve, Server, Turn
from tests.unit.controller.scheduled import Rig
from tests.unit.shared.conftest import master, new_master, new_signals, segment, signals  # noqa: F401


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*turns: Turn, context: ssl.SSLContext | None = None, path: Path | None = None) -> Server:
        if path is None:
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            listener.listen()
        servers.append(Server(listener, turns, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def prober() -> Iterator[Prober]:
    prober = Prober()
    yield prober
    prober.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    for event in rig.prober.hanging.values():
        event.set()
    rig.checks.close()
