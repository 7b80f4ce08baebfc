"""What the tests know of workers' connections is what the kernel has."""
from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from tests.support import client_sockets
from tests.support.place import HOST


@pytest.fixture(params=[True, False], ids=["asked", "read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not client_sockets._answers():
        pytest.skip("this kernel does not answer questions about sockets")
    monkeypatch.setattr(client_sockets, "_answers", lambda: request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("leave", "established"), [(lambda ends: None, 2), (lambda ends: ends[0].close(), 1)],
                         ids=["all", "one"])
def test_each_connection_counts_once_and_a_closed_one_until_it_is_seen_to(
    leave: Callable[[list[socket.socket]], None], established: int
) -> None:
    with socket.create_server((HOST, 0)) as listener, socket.create_server((HOST, 0)) as other:
        port = listener.getsockname()[1]
        clients = [socket.create_connection(server.getsockname()) for server in (listener, listener, other)]
        accepted = [listener.accept()[0] for _ in range(2)]
        leave(clients)
        assert client_sockets.shares([os.getpid(), 1], port) == [established, 0]
        assert client_sockets.connections(os.getpid(), port) == 2
        for each in (*clients, *accepted):
            each.close()
    assert client_sockets.connections(os.getpid(), port) == 0
